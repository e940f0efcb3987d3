//! The texts of a compilation: the embedded standard library and the user's files.

use std::sync::Arc;

use miette::NamedSource;

use crate::ir::FileId;
use crate::syntax::{self, ast};

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

embed![
    "prelude",
    "vocab",
    "gpipe",
    "1f1b",
    "eager-1f1b",
    "interleaved",
    "looped-bfs",
    "seq1f1b",
    "zb-h1",
    "zb-h2",
    "interleaved-zb",
    "zb-v",
    "hanayo",
    "v-half",
    "v-min",
    "1f1b-v",
    "chimera",
    "dualpipe",
    "dualpipe-v"
];

/// Every text that spans of this compilation point into.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<(String, Arc<str>)>,
}

impl Sources {
    /// Adds a text under the name that diagnostics show.
    ///
    /// # Panics
    /// When a compilation reads more than 65,536 files.
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

/// The standard library as trees; its schedules and transforms can be looked up by name.
#[derive(Clone, Debug)]
pub struct Library {
    files: Vec<ast::File>,
}

/// A schedule or a transform of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'library> {
    /// Its name.
    pub name: &'library str,
    /// The first sentence of its comment.
    pub summary: &'library str,
    /// Where it was published, as its comment says; empty where it does not.
    pub source: &'library str,
    /// The file that holds it.
    pub file: FileId,
}

impl Library {
    /// Adds the library's texts to the sources and reads them.
    ///
    /// # Panics
    /// When a file of the library cannot be read; a test keeps it from being built so.
    #[must_use]
    pub fn load(sources: &mut Sources) -> Self {
        let files = STDLIB.iter().map(|file| {
            let id = sources.add(format!("stdlib/{}.sched", file.name), file.text);
            syntax::parse(id, file.text).expect("the library is well spelt")
        });
        Self { files: files.collect() }
    }

    /// Its trees, in the order of [`STDLIB`]; what [`crate::resolve::Request::library`] takes.
    #[must_use]
    pub fn files(&self) -> &[ast::File] {
        &self.files
    }

    /// The file that holds a schedule.
    #[must_use]
    pub fn schedule(&self, name: &str) -> Option<&ast::File> {
        self.files.iter().find(|file| file.schedules().any(|schedule| schedule.name.text == name))
    }

    /// Every schedule.
    pub fn schedules(&self) -> impl Iterator<Item = Entry<'_>> + Clone {
        self.files.iter().flat_map(|file| {
            file.schedules().map(|schedule| entry(file, &schedule.name, schedule.span)).collect::<Vec<_>>()
        })
    }

    /// Every transform.
    pub fn transforms(&self) -> impl Iterator<Item = Entry<'_>> + Clone {
        self.files.iter().flat_map(|file| {
            file.transforms()
                .map(|transform| entry(file, &transform.name, transform.span))
                .collect::<Vec<_>>()
        })
    }

    /// The text that `schedc show` prints for a name: a file's, or that of the file with this schedule or transform.
    #[must_use]
    pub fn show(&self, name: &str) -> Option<&'static str> {
        let by_file = STDLIB.iter().find(|file| file.name == name);
        let holds = |file: &ast::File| {
            file.schedules().any(|schedule| schedule.name.text == name)
                || file.transforms().any(|transform| transform.name.text == name)
        };
        let by_content = || self.files.iter().position(holds).map(|index| &STDLIB[index]);
        by_file.or_else(by_content).map(|file| file.text)
    }
}

fn entry<'library>(
    file: &'library ast::File,
    name: &'library ast::Word,
    item: crate::ir::Span,
) -> Entry<'library> {
    let docs = file.docs(item);
    let summary = first_sentence(docs.first().copied().unwrap_or_default());
    let source = docs.iter().flat_map(|line| sentences(line)).find(|sentence| cites(sentence));
    Entry {
        name: &name.text,
        summary,
        source: source.filter(|&source| source != summary).unwrap_or(""),
        file: file.id,
    }
}

/// A line up to the end of its first sentence.
fn first_sentence(line: &str) -> &str {
    sentences(line).next().unwrap_or_default()
}

/// The sentences of a line: each ends with a full stop, a space and a capital or a digit.
fn sentences(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut ends = line.match_indices(". ").filter(|(at, _)| {
            // The abbreviation in "et al. 2021" ends no sentence.
            !line[..*at].ends_with("et al")
                && line[at + 2..].starts_with(|next: char| next.is_uppercase() || next.is_ascii_digit())
        });
        let end = ends.next().map_or(line.len(), |(at, _)| at + 1);
        rest = (end < line.len()).then(|| line[end..].trim_start());
        Some(line[..end].trim())
    })
}

/// Whether a sentence names a publication: it begins with a name and has a year.
fn cites(sentence: &str) -> bool {
    let year = |word: &str| {
        let digits = word.trim_end_matches([',', '.', ';', ':', ')']);
        digits.len() == 4
            && digits.starts_with(['1', '2'])
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    sentence.starts_with(char::is_uppercase) && sentence.split(' ').any(year)
}
