//! `schedc view`: schedules, plans and recorded runs as pictures.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use schedc::cost::CostSpec;
use schedc::driver::{self, Input, Job};
use schedc::simulate;
use schedc::source::Sources;
use schedc::torch::{Channel, Sound};
use schedc::verify::{Options, Verified};
use schedc::view::terminal::{Depth, Screen};
use schedc::view::{self, Chart, Range, Scene, chrome, html, recorded, svg, terminal};
use thiserror::Error;

use super::compare::{self, Entry};
use super::files::{self, Contents, Wanted};
use super::job::{self, CostArg, JobError, ModeArg};
use super::model::ModelArgs;
use super::{Failure, print};

/// What `schedc view` takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ViewArgs {
    /// Schedules of the library, `.sched` files, plans, traces: one above the other. NAME:v=2 sets parameters, NAME+vocab-1 applies a transform
    #[arg(required = true, value_name = "SCHEDULE|PLAN|TRACE")]
    inputs: Vec<String>,
    /// Pipeline ranks of what is compiled
    #[arg(long, short = 'p', value_name = "P")]
    ranks: Option<u32>,
    /// Microbatches in a step of what is compiled
    #[arg(long, short = 'm', value_name = "M")]
    microbatches: Option<u32>,
    /// A transform to apply to all that is compiled; again for more
    #[arg(long, value_name = "TRANSFORM")]
    with: Vec<String>,
    /// A parameter of all schedules; again for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = job::parameter)]
    set: Vec<(String, i64)>,
    #[command(flatten)]
    cost: CostArg,
    #[command(flatten)]
    mode: ModeArg,
    /// Where the picture goes: FILE.svg, FILE.html, or FILE.json for Chrome and Perfetto [default: a grid in the terminal]
    #[arg(long, short, value_name = "FILE", help_heading = "Picture")]
    output: Option<PathBuf>,
    /// Where the picture begins on the time axis
    #[arg(long, value_name = "TIME", value_parser = moment, help_heading = "Picture")]
    from: Option<f64>,
    /// Where it ends; the terminal squeezes what lies between into its width
    #[arg(long, value_name = "TIME", value_parser = moment, help_heading = "Picture")]
    to: Option<f64>,
    /// Columns of the terminal's grid [default: as wide as the terminal]
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(24..), help_heading = "Picture")]
    width: Option<u16>,
    /// Draw the messages between ranks as arrows (SVG)
    #[arg(long, help_heading = "Picture")]
    messages: bool,
    /// Draw the critical path: the passes that none could do without (SVG)
    #[arg(long, help_heading = "Picture")]
    critical: bool,
    /// The step of a trace to draw [default: the last one that was recorded]
    #[arg(long, value_name = "N", help_heading = "Picture")]
    step: Option<u64>,
    #[command(flatten)]
    model: ModelArgs,
}

/// A picture that can't be made.
#[derive(Debug, Error, Diagnostic)]
enum PictureError {
    /// A form that is not known.
    #[error("`{path}` does not say in which form the picture should be")]
    #[diagnostic(
        code(schedc::cli::unknown_picture),
        help("name a file that ends in `.svg`, `.html`, or `.json` for a trace")
    )]
    Unknown {
        /// The file.
        path: String,
    },
}

/// The forms of a picture in a file.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// For papers.
    Svg,
    /// To look around in.
    Html,
    /// For Chrome and Perfetto.
    Trace,
}

fn moment(text: &str) -> Result<f64, String> {
    let moment: f64 = text.parse().map_err(|_| "write a moment of the time axis, such as 12.5".to_owned())?;
    if moment.is_finite() && moment >= 0.0 { Ok(moment) } else { Err("write a moment from 0 on".to_owned()) }
}

/// Draws.
pub(crate) fn view(args: &ViewArgs) -> Result<(), Failure> {
    job::refuse_twice(&args.set)?;
    let form = args.output.as_deref().map(form).transpose()?;
    let spec = args.cost.spec()?;
    let lenient = spec.lenient();
    let mut charts = Vec::new();
    let mut catalogs = Vec::new();
    for word in &args.inputs {
        let (chart, plan) = args.chart(word, &lenient)?;
        charts.push(chart);
        catalogs.extend(plan.map(|plan| plan.header.catalog.clone()));
    }
    spec.refuse_unknown(catalogs.iter()).map_err(Failure::one)?;
    let scene = Scene::new(charts);
    let range = Range::of(&scene, args.from, args.to).map_err(Failure::usage)?;
    let (Some(path), Some(form)) = (&args.output, form) else {
        let grid = terminal::grid(&scene, &args.screen()).map_err(Failure::usage)?;
        print(&grid);
        return Ok(());
    };
    write(path, form, &scene, &svg::Options { range, messages: args.messages, critical: args.critical })
}

/// Writes all of a scene, without arrows.
pub(crate) fn draw(path: &Path, form: Form, scene: &Scene) -> Result<(), Failure> {
    let range = Range::of(scene, None, None).map_err(Failure::one)?;
    write(path, form, scene, &svg::Options { range, messages: false, critical: false })
}

fn write(path: &Path, form: Form, scene: &Scene, options: &svg::Options) -> Result<(), Failure> {
    match form {
        Form::Svg => files::write(path, |file| file.write_all(svg::draw(scene, options).as_bytes())),
        Form::Html => files::write(path, |file| html::write(file, scene, options.range)),
        Form::Trace => {
            let runs: Vec<&[Chart]> = scene.charts.iter().map(std::slice::from_ref).collect();
            files::write(path, |file| chrome::write(file, &runs))
        }
    }
}

/// The form that a file's ending names.
pub(crate) fn form(path: &Path) -> Result<Form, Failure> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("svg") => Ok(Form::Svg),
        Some("html" | "htm") => Ok(Form::Html),
        Some("json") => Ok(Form::Trace),
        _ => Err(Failure::usage(PictureError::Unknown { path: path.display().to_string() })),
    }
}

impl ViewArgs {
    /// What one word of the command line names: compiled and simulated, or as it was recorded.
    fn chart(&self, word: &str, costs: &CostSpec) -> Result<(Chart, Option<Verified>), Failure> {
        let (name, with) = self.applied(word);
        let entry = compare::named(&name, &self.set)?;
        let file = job::is_file_name(&entry.name);
        let contents = file.then(|| files::read(Path::new(&entry.name), Wanted::Job)).transpose()?;
        let plan = match contents {
            Some(Contents::Plan(bytes)) if recorded::is_trace(&bytes) => {
                let chart = recorded::read(&entry.name, &bytes, self.step).map_err(Failure::one)?;
                return Ok((chart, None));
            }
            Some(Contents::Plan(bytes)) => {
                let plan = super::verify::verified(&entry.name, &bytes, &Options::default())?;
                self.agree(&plan, &entry.name)?;
                plan
            }
            contents => self.compiled(&entry, contents, &with, costs)?,
        };
        let bound = costs.bind_plan(&plan.header).map_err(Failure::one)?;
        let timeline = simulate::simulate(&plan, &bound);
        let chart = view::predicted(&plan, &timeline, &bound);
        Ok((chart, Some(plan)))
    }

    /// Refuses flags that say something else than the plan that is drawn; beside schedules they are for those.
    fn agree(&self, plan: &Verified, name: &str) -> Result<(), Failure> {
        if self.inputs.len() > 1 {
            return Ok(());
        }
        let asked = job::JobArgs {
            schedule: name.to_owned(),
            with: self.with.clone(),
            ranks: self.ranks,
            microbatches: self.microbatches,
            set: self.set.clone(),
            cost: self.cost.clone(),
            mode: self.mode,
            schedule_name: None,
        };
        asked.agree(plan, &self.model, false)
    }

    /// A word without the transforms after its plus signs, and all transforms to apply.
    fn applied(&self, word: &str) -> (String, Vec<String>) {
        if job::is_file_name(word) {
            return (word.to_owned(), self.with.clone());
        }
        let (name, parameters) = word.split_once(':').map_or((word, None), |(name, rest)| (name, Some(rest)));
        let mut parts = name.split('+').map(str::to_owned);
        let name = parts.next().unwrap_or_default();
        let name = parameters.map_or_else(|| name.clone(), |parameters| format!("{name}:{parameters}"));
        (name, parts.chain(self.with.iter().cloned()).collect())
    }

    fn compiled(
        &self,
        entry: &Entry,
        contents: Option<Contents>,
        with: &[String],
        costs: &CostSpec,
    ) -> Result<Verified, Failure> {
        let missing = |flag| {
            let schedule = entry.name.clone();
            Failure::usage(JobError::MissingFlag { flag, command: "view", schedule })
        };
        let torch = match &contents {
            Some(Contents::Torch(bytes)) => Some(self.foreign(entry, bytes)?),
            _ => None,
        };
        let text = contents.map(Contents::into_bytes);
        let input = match (&torch, &text) {
            (Some(sound), _) => Input::Torch(sound),
            (None, Some(bytes)) => Input::File { name: &entry.name, bytes, schedule: None },
            (None, None) => Input::Library(&entry.name),
        };
        let ranks = torch.as_ref().map(|sound| sound.rows().ranks() as u32).or(self.ranks);
        let microbatches = torch.as_ref().map(Sound::microbatches).or(self.microbatches);
        let job = Job {
            input,
            with,
            set: &entry.set,
            ranks: ranks.ok_or_else(|| missing("--ranks"))?,
            microbatches: microbatches.ok_or_else(|| missing("--microbatches"))?,
            model: self.model.model(&self.cost)?,
            costs,
            retime: self.cost.retime,
            mode: self.mode.mode(),
        };
        driver::compile(&job, &mut Sources::default()).map_err(Failure::all)
    }

    /// A PyTorch schedule; flags may only say what it says.
    fn foreign(&self, entry: &Entry, bytes: &[u8]) -> Result<Sound, Failure> {
        let sound = super::verify::sound(&entry.name, bytes, Channel::Gloo, None)?;
        super::verify::agree(&sound, self.ranks, self.microbatches)?;
        Ok(sound)
    }

    /// The terminal, or what stands in its place.
    fn screen(&self) -> Screen {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let terminal = io::stdout().is_terminal();
        let forced = set("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let depth = if set("NO_COLOR").is_some() || !(terminal || forced) {
            Depth::Plain
        } else if set("COLORTERM").is_some_and(|value| value == "truecolor" || value == "24bit") {
            Depth::True
        } else {
            Depth::Indexed
        };
        let asked = self.width.map(usize::from);
        let columns = || set("COLUMNS").and_then(|value| value.parse().ok()).filter(|&width| width > 0);
        let window = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let width = asked.or_else(columns).or_else(window).unwrap_or(120).min(4096);
        Screen { width, depth, from: self.from, to: self.to }
    }
}
