//! From a JSON tree to typed values: every mistake is noted, and what can be read is read.
//!
//! A value that is wrong takes nothing else with it: the keys beside it are read and checked all
//! the same. That is why this is not serde, which gives up at the first error, and not a collecting
//! deserializer on top of it, which discards a whole object with its one bad key.

use std::borrow::Cow;

use jsonc_parser::ast::{ObjectProp, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::json::document::{Pointer, Problems, start};
use crate::json::suggest;

/// Something that a policy file can hold; its JSON schema stands beside its reading.
pub(crate) trait FromJson: JsonSchema + Sized {
    /// The value, or `None` after an error has been noted.
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self>;
}

/// A key of an object.
#[derive(Debug)]
pub(crate) enum Field<T> {
    /// The object has no such key.
    Absent,
    /// An error has been noted.
    Bad,
    /// Read.
    Given(T),
}

impl<T> Field<T> {
    pub(crate) fn given(&self) -> Option<&T> {
        match self {
            Field::Given(value) => Some(value),
            Field::Absent | Field::Bad => None,
        }
    }

    pub(crate) fn is_bad(&self) -> bool {
        matches!(self, Field::Bad)
    }

    /// The value, or what holds when it is left out. A bad value makes no policy, so the default
    /// does for it too.
    pub(crate) fn unwrap_or(self, default: T) -> T {
        match self {
            Field::Given(value) => value,
            Field::Absent | Field::Bad => default,
        }
    }

    pub(crate) fn or_none(self) -> Option<T> {
        match self {
            Field::Given(value) => Some(value),
            Field::Absent | Field::Bad => None,
        }
    }
}

/// One JSON value and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    pub(crate) value: &'a Value<'a>,
    pub(crate) pointer: Pointer<'a>,
}

impl<'a> Node<'a> {
    /// Notes an error at this value.
    pub(crate) fn error(self, problems: &mut Problems, message: impl Into<String>) {
        problems.error_at(start(self.value), self.pointer, message.into(), None);
    }

    /// The same, with the JSON that would have been right.
    pub(crate) fn error_suggesting(
        self,
        problems: &mut Problems,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        problems.error_at(start(self.value), self.pointer, message.into(), suggestion);
    }

    /// Notes that something else was expected here.
    pub(crate) fn expected(self, problems: &mut Problems, what: &str) {
        self.error(problems, format!("found {}; expected {what}", describe(self.value)));
    }

    /// A string, or an error that says what was expected.
    pub(crate) fn text(self, problems: &mut Problems, expected: &str) -> Option<&'a str> {
        match self.value {
            Value::StringLit(literal) => Some(&literal.value),
            _ => {
                self.expected(problems, expected);
                None
            }
        }
    }

    /// A whole number within bounds, or an error that says what was expected.
    pub(crate) fn integer(
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

    /// One of a few words, or an error that names them all.
    pub(crate) fn word<T: Copy>(self, problems: &mut Problems, words: &[(&str, T)]) -> Option<T> {
        let names = || words.iter().map(|(name, _)| *name);
        let found = self.text(problems, &suggest::any_of(names()))?;
        let value = words.iter().find(|(name, _)| *name == found).map(|(_, value)| *value);
        if value.is_none() {
            let message = format!("found {}; expected {}", shown(found), suggest::any_of(names()));
            self.error_suggesting(problems, message, suggest::nearest_text(found, names()));
        }
        value
    }

    /// The elements of an array.
    pub(crate) fn elements<'b>(&'b self) -> Option<impl Iterator<Item = Node<'b>>> {
        let array = self.value.as_array()?;
        let nodes = array.elements.iter().enumerate();
        Some(
            nodes.map(|(index, value)| Node {
                value,
                pointer: Pointer::Index(&self.pointer, index),
            }),
        )
    }

    /// The properties of an object; a key that stands there twice is an error.
    pub(crate) fn properties(
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

    /// An object of which all keys are known: unknown ones are errors.
    pub(crate) fn object(self, problems: &mut Problems, keys: &[&str]) -> Option<ObjectNode<'a>> {
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

/// An object of which each key has been looked at.
pub(crate) struct ObjectNode<'a> {
    node: Node<'a>,
    properties: &'a [ObjectProp<'a>],
}

impl ObjectNode<'_> {
    pub(crate) fn field<T: FromJson>(&self, key: &str, problems: &mut Problems) -> Field<T> {
        let Some(property) = self.properties.iter().find(|found| found.name.as_str() == key) else {
            return Field::Absent;
        };
        let node = Node { value: &property.value, pointer: Pointer::Key(&self.node.pointer, key) };
        T::from_json(node, problems).map_or(Field::Bad, Field::Given)
    }

    /// As [`Self::field`], but the key must be there.
    pub(crate) fn required<T: FromJson>(&self, key: &str, problems: &mut Problems) -> Field<T> {
        let field = self.field(key, problems);
        if matches!(field, Field::Absent) {
            self.node.error(problems, format!("the key \"{key}\" is missing"));
            return Field::Bad;
        }
        field
    }
}

/// A string or number as a message shows it, cut when it is long.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", suggest::quoted(text.get(..end).unwrap_or(text))),
        None => suggest::quoted(text),
    }
}

fn describe(value: &Value<'_>) -> Cow<'static, str> {
    match value {
        Value::StringLit(literal) => shown(&literal.value).into(),
        Value::NumberLit(literal) => literal.value.chars().take(40).collect::<String>().into(),
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

/// An array; an element that is wrong is `None`.
#[derive(Debug)]
pub(crate) struct List<T>(pub(crate) Vec<Option<T>>);

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

/// One value, or an array of at least one; an element that is wrong is `None`.
#[derive(Debug)]
pub(crate) struct OneOrMany<T> {
    pub(crate) values: Vec<Option<T>>,
    is_array: bool,
}

impl<T> OneOrMany<T> {
    /// What was read, each with the rest of its pointer.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, &T)> {
        self.values.iter().enumerate().filter_map(|(index, value)| {
            let step = if self.is_array { format!("/{index}") } else { String::new() };
            value.as_ref().map(|value| (step, value))
        })
    }

    /// Whether every element could be read.
    pub(crate) fn is_whole(&self) -> bool {
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

/// Defines the mirror of a JSON object: the struct, how it is read, and its schema.
///
/// `"key" => field: Type [required] = default`, where the default is JSON and for the schema only.
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
            $($(#[doc = $doc])* pub(crate) $field: $crate::json::reader::Field<$type>,)*
        }

        impl $crate::json::reader::FromJson for $name {
            fn from_json(
                node: $crate::json::reader::Node<'_>,
                problems: &mut $crate::json::document::Problems,
            ) -> Option<Self> {
                let object = node.object(problems, &[$($key),*])?;
                Some(Self { $($field: object!(@read object problems $key $($read)?),)* })
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut properties = serde_json::Map::new();
                let required = [$(object!(@required $key $($read)?)),*];
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
pub(crate) use object;

/// What editors are told of a type.
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
pub(crate) use schema;

/// Defines how a plain enum is read from a word, and its schema.
macro_rules! words {
    ($type:ty, $name:literal, $about:literal, { $($word:literal => $value:expr,)* }) => {
        impl $crate::json::reader::FromJson for $type {
            fn from_json(
                node: $crate::json::reader::Node<'_>,
                problems: &mut $crate::json::document::Problems,
            ) -> Option<Self> {
                node.word(problems, &[$(($word, $value)),*])
            }
        }

        $crate::json::reader::schema!($type as $name: |_| {
            schemars::json_schema!({ "description": $about, "enum": [$($word),*] })
        });
    };
}
pub(crate) use words;
