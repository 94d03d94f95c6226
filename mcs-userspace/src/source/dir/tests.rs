use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::model::{Event, ObjectId, Unread};

fn import(name: &str, port: u16) -> String {
    format!(
        r#"{{"apiVersion":"multicluster.x-k8s.io/v1alpha1","kind":"ServiceImport","metadata":{{"name":"{name}"}},
        "spec":{{"type":"ClusterSetIP","ips":["10.96.0.1"],"ports":[{{"port":{port}}}]}}}}"#
    )
}

fn list(items: &[String]) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"List","items":[{}]}}"#, items.join(","))
}

/// Events in short: `+name:port`, `-name`, `synced`.
fn short(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            Event::Apply(Object::Import(import)) => format!("+{}:{}", import.key.name, import.ports[0].port),
            Event::Apply(Object::Headless(key)) => format!("+{}:headless", key.name),
            Event::Apply(Object::Slice(slice)) => format!("+{}", slice.key.name),
            Event::Delete(ObjectId::Import(key) | ObjectId::Slice(key)) => format!("-{}", key.name),
            Event::Synced => "synced".to_owned(),
        })
        .collect()
}

use crate::model::Object;

/// A [`DirState`] with files in memory.
#[derive(Default)]
struct Files {
    state: DirState,
    files: BTreeMap<String, String>,
}

impl Files {
    fn put(&mut self, name: &str, text: &str) {
        self.files.insert(name.to_owned(), text.to_owned());
        self.state.file_read(name, Ok(text.as_bytes()));
    }

    fn take(&mut self, name: &str) {
        self.files.remove(name);
        self.state.file_gone(name);
    }

    fn settle(&mut self) -> Vec<String> {
        let Settled { mut events, reread, new_problems: _ } = self.state.settle();
        for name in &reread {
            self.state.file_read(name, Ok(self.files[&**name].as_bytes()));
        }
        if !reread.is_empty() {
            events.extend(self.state.settle().events);
        }
        short(&events)
    }

    fn problems(&self) -> Vec<String> {
        self.state.problems().map(ToString::to_string).collect()
    }
}

#[test]
fn what_a_file_says_is_applied_and_what_it_no_longer_says_is_deleted() {
    let mut files = Files::default();
    files.put("a.json", &list(&[import("x", 1), import("y", 2)]));
    assert_eq!(files.settle(), ["+x:1", "+y:2"]);
    files.put("a.json", &list(&[import("x", 1), import("z", 3)]));
    assert_eq!(files.settle(), ["-y", "+z:3"], "x is unchanged");
    files.put("a.json", &list(&[]));
    assert_eq!(files.settle(), ["-x", "-z"]);
    files.put("a.json", &import("x", 1));
    files.take("a.json");
    assert_eq!(files.settle(), [""; 0]);
}

#[test]
fn damaged_text_keeps_what_was_there() {
    let mut files = Files::default();
    files.put("a.json", &list(&[import("x", 1), import("y", 2)]));
    files.settle();
    for damaged in ["", " \n", "{\"kind\":\"List\"", "{\"kind\":\"List\"}", "[]", "\u{0}"] {
        files.put("a.json", damaged);
        assert_eq!(files.settle(), [""; 0], "{damaged}");
        assert_eq!(files.problems().len(), 1);
    }
    assert_eq!(files.state.unread(), Unread::default());
    files.state.file_read("a.json", Err(io::Error::from_raw_os_error(13)));
    assert_eq!(files.settle(), [""; 0]);
    assert_eq!(
        files.problems(),
        ["a.json: cannot be read: Permission denied (os error 13); its 2 objects stay as they were"]
    );
    files.put("a.json", &list(&[import("y", 2)]));
    assert_eq!(files.settle(), ["-x"]);
    assert_eq!(files.problems(), [""; 0]);
    files.put("b.json", "{");
    assert!(files.state.unread().anything);
    files.take("b.json");
    assert_eq!(files.state.unread(), Unread::default());
}

#[test]
fn an_object_that_became_invalid_keeps_its_last_good_form() {
    let mut files = Files::default();
    files.put("a.json", &list(&[import("x", 1), import("y", 2)]));
    files.settle();
    files.put("a.json", &list(&[import("x", 0), import("y", 3)]));
    assert_eq!(files.settle(), ["+y:3"]);
    assert_eq!(
        files.problems()[1],
        "a.json: ServiceImport default/x: spec.ports: no usable port; the object stays as it was"
    );
    // one that cannot be identified may be any of them
    files.put("a.json", &list(&[import("Y", 3)]));
    assert_eq!(files.settle(), [""; 0]);
    files.put("a.json", &list(&[import("y", 3)]));
    assert_eq!(files.settle(), ["-x"]);
    // one that was never valid here may be what the agent before knew
    files.put("b.json", &import("z", 0));
    assert_eq!(files.settle(), [""; 0]);
    assert_eq!(files.state.unread(), Unread { anything: false, namespaces: ["default".into()].into() });
    files.take("b.json");
    assert_eq!(files.state.unread(), Unread::default());
    // headless is an explicit word
    files.put("a.json", &import("y", 3).replace("ClusterSetIP", "Headless"));
    assert_eq!(files.settle(), ["+y:headless"]);
}

#[test]
fn the_first_file_by_name_wins_and_the_other_takes_over() {
    let mut files = Files::default();
    files.put("b.json", &import("x", 2));
    assert_eq!(files.settle(), ["+x:2"]);
    files.put("a.json", &import("x", 1));
    assert_eq!(files.settle(), ["+x:1"]);
    assert_eq!(
        files.problems(),
        ["b.json: ServiceImport default/x: also in a.json, which comes first by name and is used"]
    );
    files.put("b.json", &import("x", 3));
    assert_eq!(files.settle(), [""; 0]);
    files.take("a.json");
    assert_eq!(files.settle(), ["+x:3"], "read again");
    assert_eq!(files.problems(), [""; 0]);
    files.put("c.json", &import("x", 3));
    files.take("b.json");
    assert_eq!(files.settle(), [""; 0], "the same form");
    files.take("c.json");
    assert_eq!(files.settle(), ["-x"]);
}

#[test]
fn a_winner_that_goes_while_the_other_is_damaged_stays() {
    let mut files = Files::default();
    files.put("a.json", &import("x", 1));
    files.put("b.json", &import("x", 2));
    assert_eq!(files.settle(), ["+x:1"]);
    files.put("b.json", "{");
    files.take("a.json");
    assert_eq!(files.settle(), [""; 0]);
    files.put("b.json", &import("x", 2));
    assert_eq!(files.settle(), ["+x:2"]);
}

#[test]
fn a_move_between_files_is_no_deletion() {
    let mut files = Files::default();
    files.put("a.json", &list(&[import("x", 1), import("y", 1)]));
    files.settle();
    files.put("a.json", &list(&[import("y", 1)]));
    files.put("b.json", &import("x", 1));
    assert_eq!(files.settle(), [""; 0]);
    files.put("c.json", &import("y", 7));
    files.take("a.json");
    assert_eq!(files.settle(), ["+y:7"]);
}

#[test]
fn problems_are_new_once() {
    let mut state = DirState::default();
    let bad = list(&[import("x", 0)]);
    state.file_read("a.json", Ok(bad.as_bytes()));
    assert_eq!(state.settle().new_problems.len(), 2);
    state.file_read("a.json", Ok(bad.as_bytes()));
    assert_eq!(state.settle().new_problems, []);
    assert_eq!(state.problems().count(), 2);
}

struct Live {
    dir: TempDir,
    source: DirSource,
}

impl Live {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("m")).unwrap();
        let source = DirSource::new(&dir.path().join("m")).unwrap();
        Self { dir, source }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    async fn next(&mut self) -> Batch {
        tokio::time::timeout(Duration::from_secs(10), self.source.next()).await.unwrap()
    }

    async fn events(&mut self) -> Vec<String> {
        short(&self.next().await.events)
    }

    async fn nothing(&mut self) {
        let batch = tokio::time::timeout(Duration::from_millis(300), self.source.next()).await;
        assert!(batch.is_err(), "{batch:?}");
    }
}

#[tokio::test]
async fn files_are_followed_live() {
    let mut live = Live::new();
    live.write("m/a.json", &import("x", 1));
    live.write("m/b.yaml", &import("y", 1));
    live.write("m/.hidden.json", &import("h", 1));
    live.write("m/notes.txt", "no manifest");
    fs::create_dir(live.path("m/sub")).unwrap();
    assert_eq!(live.events().await, ["+x:1", "+y:1", "synced"]);
    live.write("m/a.json", &import("x", 2));
    assert_eq!(live.events().await, ["+x:2"]);
    // written under another name, then renamed
    live.write("m/a.json.tmp", &list(&[import("x", 3), import("z", 1)]));
    live.nothing().await;
    fs::rename(live.path("m/a.json.tmp"), live.path("m/a.json")).unwrap();
    assert_eq!(live.events().await, ["+x:3", "+z:1"]);
    fs::rename(live.path("m/a.json"), live.path("m/a.old")).unwrap();
    assert_eq!(live.events().await, ["-x", "-z"]);
    fs::remove_file(live.path("m/b.yaml")).unwrap();
    assert_eq!(live.events().await, ["-y"]);
    symlink("a.old", live.path("m/link.yml")).unwrap();
    assert_eq!(live.events().await, ["+x:3", "+z:1"]);
}

#[tokio::test]
async fn a_burst_is_one_batch() {
    let mut live = Live::new();
    live.next().await;
    for i in 0..200 {
        live.write(&format!("m/{i:03}.json"), &import(&format!("x{i:03}"), 1));
    }
    assert_eq!(live.next().await.events.len(), 200);
}

#[tokio::test]
async fn damage_is_named_and_harmless() {
    let mut live = Live::new();
    live.write("m/a.json", &import("x", 1));
    live.next().await;
    live.write("m/a.json", "{\"kind\"");
    let batch = live.next().await;
    assert_eq!(batch.events, []);
    assert_eq!(batch.new_problems.len(), 1);
    let version = live.source.problem_version();
    live.write("m/a.json", &import("x", 1));
    assert_eq!(live.events().await, [""; 0], "only the problem went");
    assert_ne!(version, live.source.problem_version());
    assert_eq!(live.source.problems().count(), 0);
    fs::create_dir(live.path("m/d.yaml")).unwrap();
    live.write("m/e.json", &import("y", 1));
    assert_eq!(live.events().await, ["+y:1"]);
}

#[tokio::test]
async fn a_missing_directory_is_waited_for() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("m");
    let mut live = Live { source: DirSource::new(&path).unwrap(), dir };
    let batch = live.next().await;
    assert_eq!(batch.events, []);
    assert!(batch.new_problems[0].reason.contains("No such file"), "{:?}", batch.new_problems);
    fs::create_dir(&path).unwrap();
    assert_eq!(live.events().await, ["synced"]);
    live.write("m/a.json", &import("x", 1));
    assert_eq!(live.events().await, ["+x:1"]);
}

#[tokio::test]
async fn a_directory_that_goes_takes_nothing_with_it() {
    let mut live = Live::new();
    live.write("m/a.json", &import("x", 1));
    live.write("m/b.json", &import("y", 1));
    live.next().await;
    fs::rename(live.path("m"), live.path("gone")).unwrap();
    let batch = live.next().await;
    assert_eq!((batch.events.len(), batch.new_problems.len()), (0, 1));
    live.nothing().await;
    // back, and still empty
    fs::create_dir(live.path("m")).unwrap();
    let batch = live.next().await;
    assert_eq!((batch.events.len(), batch.new_problems.len()), (0, 1), "{batch:?}");
    live.write("m/c.json", &list(&[import("x", 1), import("z", 1)]));
    assert_eq!(live.events().await, ["-y", "+z:1"]);
    assert_eq!(live.source.problems().count(), 0);
    // another one in its place, at once
    live.write("gone/d.json", &import("x", 9));
    fs::rename(live.path("m"), live.path("gone2")).unwrap();
    fs::rename(live.path("gone"), live.path("m")).unwrap();
    assert_eq!(live.events().await, ["+y:1", "-z"], "a.json comes before d.json");
}

/// As kubelet updates a mounted ConfigMap: all files are links through `..data`, which is replaced.
#[tokio::test]
async fn links_that_are_turned_at_once() {
    let mut live = Live::new();
    for (name, port) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(live.path("m").join(name)).unwrap();
        live.write(&format!("m/{name}/a.json"), &import("x", port));
    }
    symlink("..1", live.path("m/..data")).unwrap();
    symlink("..data/a.json", live.path("m/a.json")).unwrap();
    assert_eq!(live.events().await, ["+x:1", "synced"]);
    symlink("..2", live.path("m/..tmp")).unwrap();
    fs::rename(live.path("m/..tmp"), live.path("m/..data")).unwrap();
    assert_eq!(live.events().await, ["+x:2"]);
}

#[tokio::test]
async fn a_directory_behind_a_link_that_is_turned() {
    let mut live = Live::new();
    live.write("m/a.json", &import("x", 1));
    fs::create_dir(live.path("other")).unwrap();
    live.write("other/a.json", &import("x", 2));
    symlink("m", live.path("link")).unwrap();
    live.source = DirSource::new(&live.path("link")).unwrap();
    assert_eq!(live.events().await, ["+x:1", "synced"]);
    symlink("other", live.path("link.new")).unwrap();
    fs::rename(live.path("link.new"), live.path("link")).unwrap();
    assert_eq!(live.events().await, ["+x:2"]);
}

#[tokio::test]
async fn a_barrier_comes_with_what_was_before_it() {
    let mut live = Live::new();
    let pins = TempDir::new().unwrap();
    fs::create_dir(pins.path().join("sync-old")).unwrap();
    live.source.watch_barriers(pins.path()).unwrap();
    live.write("m/a.json", &import("x", 1));
    let batch = live.next().await;
    assert_eq!(short(&batch.events), ["+x:1", "synced"]);
    assert_eq!(batch.barriers, [pins.path().join("sync-old")]);
    live.write("m/a.json", &import("x", 2));
    fs::create_dir(pins.path().join("sync-1")).unwrap();
    fs::create_dir(pins.path().join("other")).unwrap();
    let batch = live.next().await;
    assert_eq!(short(&batch.events), ["+x:2"]);
    assert_eq!(batch.barriers, [pins.path().join("sync-1")]);
    fs::create_dir(pins.path().join("sync-2")).unwrap();
    let batch = live.next().await;
    assert_eq!((batch.events.len(), batch.barriers.len()), (0, 1));
}

#[tokio::test]
async fn waiting_may_be_given_up() {
    let mut live = Live::new();
    live.next().await;
    for i in 0..20 {
        live.nothing_at_once().await;
        live.write("m/a.json", &import("x", i + 1));
        assert_eq!(live.events().await, [format!("+x:{}", i + 1)]);
    }
}

impl Live {
    async fn nothing_at_once(&mut self) {
        assert!(tokio::time::timeout(Duration::from_millis(1), self.source.next()).await.is_err());
    }
}
