//! What several topics share: compiling a text as a user would, and its report as a user sees it.

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use schedc::diag::Error;
use schedc::ir::{Dims, Mode, Precision, Program};
use schedc::resolve::{Model, Partitioning, Request, resolve};
use schedc::source::{Library, Sources};
use schedc::syntax;

/// The numbers of one compilation.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) ranks: u32,
    pub(crate) microbatches: u32,
    pub(crate) schedule: Option<String>,
    pub(crate) with: Vec<String>,
    pub(crate) set: Vec<(String, i64)>,
    pub(crate) model: Dims,
    pub(crate) mode: Mode,
    pub(crate) partition: Partitioning,
}

impl Default for Options {
    fn default() -> Self {
        let model = Dims {
            layers: 8,
            hidden: 16,
            heads: 2,
            sequence: 8,
            batch: 1,
            vocab: 64,
            tied: false,
            precision: Precision::F32,
        };
        Self {
            ranks: 4,
            microbatches: 8,
            schedule: None,
            with: Vec::new(),
            set: Vec::new(),
            model,
            mode: Mode::Training,
            partition: Partitioning::Uniform,
        }
    }
}

impl Options {
    /// Reads `ranks=4 microbatches=8 with=vocab-2 set=v=3 layers=2 schedule=name`.
    pub(crate) fn parse(words: &str) -> Self {
        let mut options = Self::default();
        for word in words.split_whitespace() {
            let (key, value) = word.split_once('=').expect("an option is key=value");
            let number = || value.parse::<u32>().expect("a number");
            match key {
                "ranks" => options.ranks = number(),
                "microbatches" => options.microbatches = number(),
                "layers" => options.model.layers = number(),
                "hidden" => options.model.hidden = number(),
                "heads" => options.model.heads = number(),
                "seq" => options.model.sequence = number(),
                "vocab" => options.model.vocab = number(),
                "mode" => {
                    options.mode = if value == "forward_only" { Mode::ForwardOnly } else { Mode::Training }
                }
                "partition" => {
                    let numbers = value.split(',').map(|count| count.parse().expect("a number"));
                    options.partition = Partitioning::Given(numbers.collect());
                }
                "precision" => {
                    options.model.precision = if value == "bf16" { Precision::Bf16 } else { Precision::F32 }
                }
                "tied" => options.model.tied = number() == 1,
                "schedule" => options.schedule = Some(value.to_owned()),
                "with" => options.with.push(value.to_owned()),
                "set" => {
                    let (name, value) = value.split_once('=').expect("set=name=value");
                    options.set.push((name.to_owned(), value.parse().expect("a number")));
                }
                _ => panic!("unknown option {key}"),
            }
        }
        options
    }
}

/// Text -> program, with errors that know their text.
pub(crate) fn program(name: &str, text: &[u8], options: &Options) -> Result<Program, Vec<Error>> {
    let mut sources = Sources::default();
    let library = Library::load(&mut sources);
    let file = sources.add(name, String::from_utf8_lossy(text).into_owned());
    let parsed = syntax::decode(file, text).and_then(|text| syntax::parse(file, text));
    let parsed = parsed.map_err(|error| vec![Error::new(error, &sources)])?;
    let request = Request {
        library: library.files(),
        file: &parsed,
        schedule: options.schedule.as_deref(),
        with: &options.with,
        set: &options.set,
        ranks: options.ranks,
        microbatches: options.microbatches,
        model: Model {
            layers: Some(options.model.layers),
            dims: options.model,
            partition: options.partition.clone(),
        },
    };
    resolve(&request).map_err(|errors| errors.into_iter().map(|error| Error::new(error, &sources)).collect())
}

/// The report that a terminal of 110 columns without colours shows.
pub(crate) fn rendered(error: &Error) -> String {
    let mut text = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(110)
        .with_links(false)
        .render_report(&mut text, error)
        .expect("reports can be written");
    text
}

/// The code of an error, without `schedc::`: `syntax::too_deep`.
pub(crate) fn code(error: &Error) -> String {
    let code = error.code().expect("every diagnostic has a code").to_string();
    code.strip_prefix("schedc::").expect("codes begin with schedc").to_owned()
}
