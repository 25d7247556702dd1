//! Reads typed values from a JSON tree and reports every mistake.
//!
//! A wrong value does not hide the values beside it: the reader reads and checks every key. serde
//! stops at the first error, and a collecting deserializer on top of serde discards a whole object
//! with one bad key. So this reader uses neither.

use std::borrow::Cow;

use jsonc_parser::ast::{ObjectProp, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

pub use crate::{integer, object, schema, words};

use crate::document::{Pointer, Problems, start};
use crate::suggest;

/// A value of a file. Its JSON schema stands beside its reading.
pub trait FromJson: JsonSchema + Sized {
    /// Reads the value. Returns `None` after it has reported an error.
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self>;
}

/// The value of a key in an object.
#[derive(Debug)]
pub enum Field<T> {
    /// The object has no such key.
    Absent,
    /// The value is wrong, and the error is reported.
    Bad,
    /// The object has the key.
    Given(T),
}

impl<T> Field<T> {
    /// Returns the value, if it could be read.
    pub fn given(&self) -> Option<&T> {
        match self {
            Field::Given(value) => Some(value),
            Field::Absent | Field::Bad => None,
        }
    }

    /// Returns whether the value is wrong.
    pub fn is_bad(&self) -> bool {
        matches!(self, Field::Bad)
    }

    /// Returns the value, or the default of a key that is left out. A bad value makes the file
    /// unusable, so its replacement does not matter.
    pub fn unwrap_or(self, default: T) -> T {
        match self {
            Field::Given(value) => value,
            Field::Absent | Field::Bad => default,
        }
    }

    /// Returns the value, if it could be read.
    pub fn or_none(self) -> Option<T> {
        match self {
            Field::Given(value) => Some(value),
            Field::Absent | Field::Bad => None,
        }
    }
}

/// A JSON value and its place.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    /// The value.
    pub value: &'a Value<'a>,
    /// Where it is.
    pub pointer: Pointer<'a>,
}

impl<'a> Node<'a> {
    /// Reports an error at this value.
    pub fn error(self, problems: &mut Problems, message: impl Into<String>) {
        problems.error_at(start(self.value), self.pointer, message.into(), None);
    }

    /// Reports an error at this value, with the JSON that was probably meant.
    pub fn error_suggesting(
        self,
        problems: &mut Problems,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        problems.error_at(start(self.value), self.pointer, message.into(), suggestion);
    }

    /// Reports that something else was expected here.
    pub fn expected(self, problems: &mut Problems, what: &str) {
        self.error(problems, format!("found {}; expected {what}", describe(self.value)));
    }

    /// Returns a string, or reports what was expected.
    pub fn text(self, problems: &mut Problems, expected: &str) -> Option<&'a str> {
        match self.value {
            Value::StringLit(literal) => Some(&literal.value),
            _ => {
                self.expected(problems, expected);
                None
            }
        }
    }

    /// Returns a whole number within bounds, or reports what was expected.
    pub fn integer(
        self,
        problems: &mut Problems,
        bounds: std::ops::RangeInclusive<u32>,
        what: &str,
    ) -> Option<u32> {
        let number = match self.value {
            Value::NumberLit(literal) => literal.value.parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            let expected = format!("{what} from {} to {}", bounds.start(), bounds.end());
            self.expected(problems, &expected);
        }
        number
    }

    /// Returns the value of one of these words, or reports all words.
    pub fn word<T: Copy>(self, problems: &mut Problems, words: &[(&str, T)]) -> Option<T> {
        let names = || words.iter().map(|(name, _)| *name);
        let found = self.text(problems, &suggest::any_of(names()))?;
        let value = words.iter().find(|(name, _)| *name == found).map(|(_, value)| *value);
        if value.is_none() {
            let message = format!("found {}; expected {}", shown(found), suggest::any_of(names()));
            self.error_suggesting(problems, message, suggest::nearest_text(found, names()));
        }
        value
    }

    /// Returns the elements of an array.
    pub fn elements<'b>(&'b self) -> Option<impl Iterator<Item = Node<'b>>> {
        let array = self.value.as_array()?;
        let nodes = array.elements.iter().enumerate();
        Some(
            nodes.map(|(index, value)| Node {
                value,
                pointer: Pointer::Index(&self.pointer, index),
            }),
        )
    }

    /// Returns the properties of an object, and reports each key that the object has twice.
    pub fn properties(
        self,
        problems: &mut Problems,
        expected: &str,
    ) -> Option<&'a [ObjectProp<'a>]> {
        let Value::Object(object) = self.value else {
            self.expected(problems, expected);
            return None;
        };
        let mut seen = std::collections::HashSet::new();
        for property in &object.properties {
            let key = property.name.as_str();
            if !seen.insert(key) {
                let message = format!("the key {} stands here twice", shown(key));
                let pointer = Pointer::Key(&self.pointer, key);
                problems.error_at(property.range.start, pointer, message, None);
            }
        }
        Some(&object.properties)
    }

    /// Returns an object, and reports each of its keys that is not among `keys`.
    pub fn object(self, problems: &mut Problems, keys: &[&str]) -> Option<ObjectNode<'a>> {
        let properties = self.properties(problems, "an object")?;
        for property in properties {
            let key = property.name.as_str();
            if !keys.contains(&key) {
                let pointer = Pointer::Key(&self.pointer, key);
                let known = suggest::any_of(keys.iter().copied().filter(|key| *key != "$schema"));
                let message = format!("unknown key {}; expected {known}", shown(key));
                let is_given = |key: &str| properties.iter().any(|it| it.name.as_str() == key);
                let missing = keys.iter().copied().filter(|key| !is_given(key));
                let suggestion = suggest::nearest_text(key, missing);
                problems.error_at(property.range.start, pointer, message, suggestion);
            }
        }
        Some(ObjectNode { node: self, properties })
    }
}

/// An object whose keys are all known.
pub struct ObjectNode<'a> {
    node: Node<'a>,
    properties: &'a [ObjectProp<'a>],
}

impl ObjectNode<'_> {
    /// Reads the value of a key.
    pub fn field<T: FromJson>(&self, key: &str, problems: &mut Problems) -> Field<T> {
        let Some(property) = self.properties.iter().find(|found| found.name.as_str() == key) else {
            return Field::Absent;
        };
        let node = Node { value: &property.value, pointer: Pointer::Key(&self.node.pointer, key) };
        T::from_json(node, problems).map_or(Field::Bad, Field::Given)
    }

    /// Reads the value of a key that the object must have.
    pub fn required<T: FromJson>(&self, key: &str, problems: &mut Problems) -> Field<T> {
        let field = self.field(key, problems);
        if matches!(field, Field::Absent) {
            self.node.error(problems, format!("the key \"{key}\" is missing"));
            return Field::Bad;
        }
        field
    }
}

/// Longest string that a message shows in full, in characters.
const MAX_SHOWN_CHARS: usize = 60;

/// Longest number that a message shows in full, in characters.
const MAX_SHOWN_DIGITS: usize = 40;

/// Returns a string as a message shows it, cut if it is long.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", suggest::quoted(text.get(..end).unwrap_or(text))),
        None => suggest::quoted(text),
    }
}

fn describe(value: &Value<'_>) -> Cow<'static, str> {
    match value {
        Value::StringLit(literal) => shown(&literal.value).into(),
        Value::NumberLit(literal) => {
            literal.value.chars().take(MAX_SHOWN_DIGITS).collect::<String>().into()
        }
        Value::BooleanLit(literal) => literal.value.to_string().into(),
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "an array".into(),
        Value::NullKeyword(_) => "null".into(),
    }
}

impl FromJson for bool {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        let value = node.value.as_boolean_lit().map(|literal| literal.value);
        if value.is_none() {
            node.expected(problems, "true or false");
        }
        value
    }
}

/// An array. A wrong element is `None`.
#[derive(Debug)]
pub struct List<T>(
    /// The elements.
    pub Vec<Option<T>>,
);

impl<T: FromJson> FromJson for List<T> {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        let Some(elements) = node.elements() else {
            node.expected(problems, "an array");
            return None;
        };
        Some(Self(elements.map(|element| T::from_json(element, problems)).collect()))
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}-list", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": generator.subschema_for::<T>() })
    }
}

/// One value, or an array of at least one. A wrong element is `None`.
#[derive(Debug)]
pub struct OneOrMany<T> {
    /// The values.
    pub values: Vec<Option<T>>,
    is_array: bool,
}

impl<T> OneOrMany<T> {
    /// Returns the values that could be read, each with the last step of its pointer.
    pub fn iter(&self) -> impl Iterator<Item = (String, &T)> {
        self.values.iter().enumerate().filter_map(|(index, value)| {
            let step = if self.is_array { format!("/{index}") } else { String::new() };
            value.as_ref().map(|value| (step, value))
        })
    }

    /// Returns whether every element could be read.
    pub fn is_complete(&self) -> bool {
        self.values.iter().all(Option::is_some)
    }
}

impl<T: FromJson> FromJson for OneOrMany<T> {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        let Some(elements) = node.elements() else {
            let value = T::from_json(node, problems)?;
            return Some(Self { values: vec![Some(value)], is_array: false });
        };
        let values: Vec<_> = elements.map(|element| T::from_json(element, problems)).collect();
        if values.is_empty() {
            node.error(problems, "found an empty array; expected at least one element");
            return None;
        }
        Some(Self { values, is_array: true })
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}-or-list", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one.clone(), { "type": "array", "items": one, "minItems": 1 }] })
    }
}

/// Defines a JSON object: its struct, its reading and its schema.
///
/// The form of a key is `"key" => field: Type [required] = default`. The default is JSON, and only
/// the schema uses it.
#[macro_export]
macro_rules! object {
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:literal => $field:ident: $type:ty $([$read:ident])? $(= $default:tt)?,
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug)]
        pub(crate) struct $name {
            $($(#[doc = $doc])* pub(crate) $field: $crate::reader::Field<$type>,)*
        }

        impl $crate::reader::FromJson for $name {
            fn from_json(
                node: $crate::reader::Node<'_>,
                problems: &mut $crate::document::Problems,
            ) -> Option<Self> {
                let object = node.object(problems, &[$($key),*])?;
                Some(Self { $($field: $crate::object!(@read object problems $key $($read)?),)* })
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut properties = serde_json::Map::new();
                let required = [$($crate::object!(@required $key $($read)?)),*];
                let required: Vec<&str> = required.into_iter().flatten().collect();
                $(
                    let mut property = generator.subschema_for::<$type>();
                    let about = [$($doc),*].map(str::trim).join(" ");
                    property.insert("description".to_owned(), about.into());
                    $(property.insert("default".to_owned(), serde_json::json!($default));)?
                    properties.insert($key.to_owned(), property.into());
                )*
                let about = [$($about),*].map(str::trim).join(" ");
                schemars::json_schema!({
                    "description": about,
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                })
            }
        }
    };
    (@read $object:ident $problems:ident $key:literal) => { $object.field($key, $problems) };
    (@required $key:literal) => { None::<&str> };
    (@required $key:literal required) => { Some($key) };
    (@read $object:ident $problems:ident $key:literal required) => {
        $object.required($key, $problems)
    };
}

/// Defines the schema of a type.
#[macro_export]
macro_rules! schema {
    ($type:ty as $name:literal: $make:expr) => {
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let make: fn(&mut schemars::SchemaGenerator) -> schemars::Schema = $make;
                make(generator)
            }
        }
    };
}

/// Defines the reading of an enum from a word, and its schema.
#[macro_export]
macro_rules! words {
    ($type:ty, $name:literal, $about:literal, { $($word:literal => $value:expr,)* }) => {
        impl $crate::reader::FromJson for $type {
            fn from_json(
                node: $crate::reader::Node<'_>,
                problems: &mut $crate::document::Problems,
            ) -> Option<Self> {
                node.word(problems, &[$(($word, $value)),*])
            }
        }

        $crate::reader::schema!($type as $name: |_| {
            schemars::json_schema!({ "description": $about, "enum": [$($word),*] })
        });
    };
}

/// Defines an integer within bounds, its reading and its schema.
#[macro_export]
macro_rules! integer {
    ($(#[doc = $about:literal])* $name:ident: $what:literal, $low:literal ..= $high:expr) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name(pub(crate) u32);

        impl $crate::reader::FromJson for $name {
            fn from_json(
                node: $crate::reader::Node<'_>,
                problems: &mut $crate::document::Problems,
            ) -> Option<Self> {
                node.integer(problems, $low..=$high, $what).map(Self)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "integer", "minimum": $low, "maximum": $high })
            }
        }
    };
}
