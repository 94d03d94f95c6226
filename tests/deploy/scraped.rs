//! A real Prometheus reads a controller's numbers and evaluates the alerts on them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use mcs_tests::apiserver::{ApiServer, Port, find};
use mcs_tests::child::{Child, find_program};
use mcs_tests::mcs::Controller;
use mcs_tests::{privilege, require_api_server};
use serde_json::Value;

use crate::rendered::directory;

const PROMETHEUS: &str = "prometheus";
const SOON: Duration = Duration::from_secs(60);
/// How often Prometheus is asked, which tells nobody when it has read something.
const POLL: Duration = Duration::from_millis(200);

/// The `data` of an answer of Prometheus' API.
fn ask(port: &Port, path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).context("connect")?;
    // HTTP/1.0: the answer ends with the connection.
    stream.write_all(format!("GET /api/v1/{path} HTTP/1.0\r\n\r\n").as_bytes()).context("ask")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("read")?;
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let answer: Value = serde_json::from_str(body).with_context(|| head.to_owned())?;
    if answer["status"] != "success" {
        bail!("{path}: {answer}");
    }
    Ok(answer["data"].clone())
}

/// Asks until the answer is as it should be.
#[track_caller]
fn until(port: &Port, path: &str, done: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + SOON;
    loop {
        let answer = ask(port, path);
        match answer {
            Ok(data) if done(&data) => return data,
            last => assert!(Instant::now() < end, "{path}: not in {SOON:?}: {last:?}"),
        }
        thread::sleep(POLL);
    }
}

#[test]
fn a_real_prometheus_reads_the_numbers_and_the_alerts() {
    require_api_server!();
    let program = match find_program(PROMETHEUS).map_or_else(|| find(PROMETHEUS), Ok) {
        Ok(program) => program,
        Err(why) => return privilege::skip("scraped", &why.to_string()),
    };
    let server = ApiServer::start("a").unwrap();
    let (target, port) = (Port::reserve().unwrap(), Port::reserve().unwrap());
    let address = format!("127.0.0.1:{}", target.number());
    let _controller = Controller::with(&server, "controller", &["--metrics-listen", &address], &[]).unwrap();

    let config = server.dir().join("prometheus.yaml");
    let rules = directory().join("components/monitoring/alerts.yaml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{rules:?}]\nscrape_configs:\n\
         - {{job_name: mcs-controller, static_configs: [{{targets: [\"{address}\"]}}]}}\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", server.dir().join("prometheus").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{}", port.number()));
    let _prometheus = Child::start_here(command, &server.dir().join("prometheus.log")).unwrap();

    let value = |data: &Value| data["result"][0]["value"][1].as_str().map(str::to_owned);
    until(&port, "query?query=up%7Bjob=%22mcs-controller%22%7D", |data| value(data).as_deref() == Some("1"));
    until(&port, "query?query=mcs_withdrawals_held", |data| value(data).as_deref() == Some("0"));
    let evaluated = |data: &Value| {
        let groups = data["groups"].as_array().into_iter().flatten();
        let rules: Vec<&Value> = groups.filter_map(|group| group["rules"].as_array()).flatten().collect();
        rules.len() > 10 && rules.iter().all(|rule| rule["health"] == "ok")
    };
    until(&port, "rules", evaluated);
}
