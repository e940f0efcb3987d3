//! The texts of a compilation: the embedded standard library and the user's files.

use std::sync::Arc;

use miette::NamedSource;

use crate::ir::FileId;

/// A file of the standard library: its path below `stdlib/` and its text.
pub struct Embedded {
    /// The name that `schedc show` takes: `1f1b`, `prelude`, `vocab`.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! embed {
    ($($name:literal),* $(,)?) => {
        /// The standard library, in the order that `schedc list` shows.
        pub const STDLIB: &[Embedded] =
            &[$(Embedded { name: $name, text: include_str!(concat!("../stdlib/", $name, ".sched")) }),*];
    };
}

embed!["prelude", "vocab", "gpipe", "1f1b", "eager-1f1b", "interleaved", "looped-bfs", "zb-h1", "zb-h2"];

/// Every text that spans of this compilation point into.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<(String, Arc<str>)>,
}

impl Sources {
    /// Adds a text under the name that diagnostics show.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<Arc<str>>) -> FileId {
        let id = FileId(u16::try_from(self.files.len()).expect("a compilation reads few files"));
        self.files.push((name.into(), text.into()));
        id
    }

    /// The text of a file.
    #[must_use]
    pub fn text(&self, file: FileId) -> Arc<str> {
        Arc::clone(&self.files[usize::from(file.0)].1)
    }

    /// The file as miette wants it.
    #[must_use]
    pub fn named(&self, file: FileId) -> NamedSource<Arc<str>> {
        let (name, text) = &self.files[usize::from(file.0)];
        NamedSource::new(name, Arc::clone(text))
    }
}
