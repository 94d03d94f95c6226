//! Reading without failing: a value of the wrong type costs itself, not the object around it.
//!
//! `serde` stops at the first surprise and throws away what it has. Here each value is a [`Lax`]: present and of its
//! shape, absent, or something else that is described for the report. So one pass reads an object, a string where a
//! number belongs is named by its path, and everything beside it is kept. It is also fast: strings are borrowed from
//! the text, fields that nobody asks for are skipped.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value that may be missing or of the wrong type.
#[derive(Debug, Default)]
pub(super) enum Lax<T> {
    /// Not written, or `null`, which Kubernetes takes for the same.
    #[default]
    Absent,
    /// Of its shape.
    Good(T),
    /// Something else; the text says what, as in `string "http"`.
    Bad(String),
}

/// What a [`Lax`] can hold: a type that takes some kinds of values, and refuses the rest.
pub(super) trait Shape<'de>: Sized {
    /// What it takes, for the report.
    const WANTED: &'static str;

    /// From a string.
    fn text(text: Cow<'de, str>) -> Result<Self, Cow<'de, str>> {
        Err(text)
    }

    /// From an integer. One beyond `i64` arrives as the nearest that fits: no field reaches that far.
    fn integer(_number: i64) -> Option<Self> {
        None
    }

    /// From true or false.
    fn boolean(_value: bool) -> Option<Self> {
        None
    }

    /// From a list, which is read to its end either way.
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    /// From an object, which is read to its end either way.
    fn object<A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl<'de> Shape<'de> for Cow<'de, str> {
    const WANTED: &'static str = "a string";

    fn text(text: Cow<'de, str>) -> Result<Self, Cow<'de, str>> {
        Ok(text)
    }
}

impl Shape<'_> for i64 {
    const WANTED: &'static str = "a whole number";

    fn integer(number: i64) -> Option<Self> {
        Some(number)
    }
}

impl Shape<'_> for bool {
    const WANTED: &'static str = "true or false";

    fn boolean(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl<'de, T: Shape<'de>> Shape<'de> for Vec<Lax<T>> {
    const WANTED: &'static str = "a list";

    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Some(items))
    }
}

impl<'de, T: Shape<'de>> Deserialize<'de> for Lax<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LaxVisitor(PhantomData))
    }
}

struct LaxVisitor<T>(PhantomData<T>);

impl<T> LaxVisitor<T> {
    fn took(value: Option<T>, found: impl FnOnce() -> String) -> Lax<T> {
        value.map_or_else(|| Lax::Bad(found()), Lax::Good)
    }
}

impl<'de, T: Shape<'de>> LaxVisitor<T> {
    fn text(text: Cow<'de, str>) -> Lax<T> {
        T::text(text).map_or_else(|text| Lax::Bad(format!("string {}", quoted(&text))), Lax::Good)
    }
}

impl<'de, T: Shape<'de>> Visitor<'de> for LaxVisitor<T> {
    type Value = Lax<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WANTED)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Lax<T>, E> {
        Ok(Self::took(T::boolean(value), || value.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Lax<T>, E> {
        Ok(Self::took(T::integer(number), || format!("number {number}")))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Lax<T>, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Lax<T>, E> {
        Ok(Lax::Bad(format!("number {number}")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Lax<T>, E> {
        Ok(Self::text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Lax<T>, E> {
        Ok(Self::text(Cow::Borrowed(text)))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Lax<T>, E> {
        Ok(Self::text(Cow::Owned(text)))
    }

    fn visit_unit<E: Error>(self) -> Result<Lax<T>, E> {
        Ok(Lax::Absent)
    }

    fn visit_none<E: Error>(self) -> Result<Lax<T>, E> {
        Ok(Lax::Absent)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Lax<T>, D::Error> {
        Lax::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Lax<T>, A::Error> {
        Ok(Self::took(T::list(list)?, || "list".to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Lax<T>, A::Error> {
        Ok(Self::took(T::object(object)?, || "object".to_owned()))
    }
}

/// A key of an object, borrowed where the text allows.
pub(super) struct Key<'de>(pub(super) Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
        }

        deserializer.deserialize_str(KeyVisitor)
    }
}

/// A struct of [`Lax`] fields, read from an object by its keys. Of a key that is written twice the last counts, as in
/// the API server; keys that are not named are skipped.
macro_rules! shape {
    ($(#[$meta:meta])* struct $name:ident $(<$life:lifetime>)? { $($(#[$doc:meta])* $key:pat => $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub(super) struct $name $(<$life>)? {
            $($(#[$doc])* pub(super) $field: Lax<$type>,)*
        }

        impl<'de> Shape<'de> for $name $(<$life>)? {
            const WANTED: &'static str = "an object";

            fn object<A: serde::de::MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
                let mut this = Self::default();
                while let Some(key) = object.next_key::<$crate::manifest::lax::Key<'de>>()? {
                    match &*key.0 {
                        $($key => this.$field = object.next_value()?,)*
                        _ => {
                            object.next_value::<serde::de::IgnoredAny>()?;
                        }
                    }
                }
                Ok(Some(this))
            }
        }
    };
}
pub(super) use shape;

/// A user's text for a report: quoted, escaped, and cut where it gets long.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}
