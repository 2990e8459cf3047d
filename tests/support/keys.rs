//! The keys of drover.toml, as its parser asks for them: there is no second list that could be wrong.

use std::cell::RefCell;
use std::collections::BTreeMap;

use drover::config::File;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as _, forward_to_deserialize_any};

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    Text,
    Texts,
    Whole,
    Number,
    /// Values of several types.
    Several,
}

/// Every key with what it takes: `build.retries`, `cache.<name>.url`.
pub fn keys() -> BTreeMap<String, Takes> {
    let seen = Seen::default();
    File::deserialize(Asked { seen: &seen, path: String::new(), in_list: false }).unwrap();
    seen.into_inner()
}

type Seen = RefCell<BTreeMap<String, Takes>>;

/// Answers whatever is asked for, and notes it.
struct Asked<'a> {
    seen: &'a Seen,
    path: String,
    in_list: bool,
}

impl Asked<'_> {
    fn note(&self, takes: Takes) {
        let takes = match (self.in_list, takes) {
            (false, takes) => takes,
            (true, Takes::Text) => Takes::Texts,
            (true, takes) => panic!("{} takes a list of {takes:?}", self.path),
        };
        self.seen.borrow_mut().insert(self.path.clone(), takes);
    }

    fn below(&self, key: &str) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { seen: self.seen, path, in_list: false }
    }
}

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note(Takes::Several);
        visitor.visit_bool(true)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note(Takes::Text);
        visitor.visit_str("x")
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note(Takes::Whole);
        visitor.visit_u32(1)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note(Takes::Whole);
        visitor.visit_u64(1)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note(Takes::Whole);
        visitor.visit_i32(1)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.note(Takes::Number);
        visitor.visit_f64(1.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(OneItem(Some(Self { in_list: true, ..self })))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { of: self, names: &["<name>"], at: 0 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { of: self, names: fields, at: 0 })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i64 i128 u8 u16 u128 f32 char str bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct
        enum identifier ignored_any
    }
}

struct OneItem<'a>(Option<Asked<'a>>);

impl<'de> SeqAccess<'de> for OneItem<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|asked| seed.deserialize(asked)).transpose()
    }
}

struct Entries<'a> {
    of: Asked<'a>,
    names: &'static [&'static str],
    at: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let name = self.names.get(self.at);
        name.map(|name| seed.deserialize(StrDeserializer::<Error>::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let asked = self.of.below(self.names[self.at]);
        self.at += 1;
        seed.deserialize(asked)
    }
}
