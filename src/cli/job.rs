//! What to compile: a library name, a `.sched` file or a plan file, and the numbers for it.

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use schedc::cost::{CostSpec, Costs, ModelFile, Profile, Rates, Topology, Training, step_flops};
use schedc::driver::{self, Input, Job};
use schedc::ir::{Header, Mode};
use schedc::simulate::{Known, OnDevice, Rate};
use schedc::source::{Library, Sources};
use schedc::torch::{Channel, Sound};
use schedc::verify::Verified;
use thiserror::Error;

use super::Failure;
use super::files::{self, Contents, Wanted};
use super::model::ModelArgs;

/// The schedule and its shape.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JobArgs {
    /// A schedule of the library (`schedc list`), a `.sched` file, a PyTorch schedule `.csv`, or for `run` and `simulate` a plan file
    pub(super) schedule: String,
    /// A transform to apply; again for more
    #[arg(long, value_name = "TRANSFORM")]
    pub(super) with: Vec<String>,
    /// Pipeline ranks
    #[arg(long, short = 'p', value_name = "P")]
    pub(super) ranks: Option<u32>,
    /// Microbatches in a step
    #[arg(long, short = 'm', value_name = "M")]
    pub(super) microbatches: Option<u32>,
    /// A parameter of the schedule; again for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    pub(super) set: Vec<(String, i64)>,
    #[command(flatten)]
    pub(super) cost: CostArg,
    #[command(flatten)]
    pub(super) mode: ModeArg,
    /// Which schedule of a file that holds several
    #[arg(long, value_name = "NAME")]
    pub(super) schedule_name: Option<String>,
}

/// How long things take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CostArg {
    /// How long passes, messages (`p2p`) and collectives take, such as `F=10,B=12,p2p=1,all_reduce=2`
    #[arg(long, value_name = "NAME=COST,…")]
    cost: Option<String>,
    /// A model file: dimensions, precision, optimizer, recomputation; flags of the model go before it
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    model_file: Option<PathBuf>,
    /// Predict durations by the rates of a device (`schedc list`) or a device file; `--cost` is in microseconds then
    #[arg(long, value_name = "DEVICE", conflicts_with = "profile")]
    device: Option<String>,
    /// Nodes, devices in each, and the ways between them; without it all ranks are in one node
    #[arg(long, value_name = "FILE", requires = "device")]
    topology: Option<PathBuf>,
    /// Take durations from a table of times or from the trace of a run; `--cost` is in microseconds then
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Fill idle time with passes that are ready, holding at most N microbatches more than the schedule does
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "0")]
    pub(crate) retime: Option<u32>,
}

impl CostArg {
    /// The costs by name; none where the flag is absent.
    pub(crate) fn spec(&self) -> Result<CostSpec, Failure> {
        let spec = self.cost.as_deref().map_or(Ok(CostSpec::default()), CostSpec::parse);
        let spec = spec.map_err(Failure::usage)?;
        if let Some(path) = &self.profile {
            let text = files::text(path)?;
            let profile = Profile::parse(&path.display().to_string(), &text).map_err(Failure::one)?;
            return Ok(spec.with_profile(profile));
        }
        let Some(device) = &self.device else { return Ok(spec) };
        let device = super::model::device(device)?;
        let topology = self.topology.as_deref().map(|path| {
            let text = files::text(path)?;
            Topology::parse(&path.display().to_string(), &text).map_err(Failure::one)
        });
        Ok(spec.with_rates(Rates { training: self.training()?, device, topology: topology.transpose()? }))
    }

    /// What the model file says.
    pub(super) fn model_file(&self) -> Result<Option<ModelFile>, Failure> {
        let Some(path) = &self.model_file else { return Ok(None) };
        let text = files::text(path)?;
        ModelFile::parse(&path.display().to_string(), &text).map(Some).map_err(Failure::one)
    }

    /// How the model is trained: as the interpreter does where no file says otherwise.
    pub(super) fn training(&self) -> Result<Training, Failure> {
        Ok(self.model_file()?.map_or_else(Training::default, |file| file.training))
    }

    /// The first flag that asks for other durations than the plan of a file was compiled for.
    fn asked(&self) -> Option<String> {
        let cost = self.cost.as_deref().map(|cost| format!("--cost {cost}"));
        let device = || self.device.as_deref().map(|device| format!("--device {device}"));
        let profile = || self.profile.as_deref().map(|path| format!("--profile {}", path.display()));
        cost.or_else(device).or_else(profile)
    }
}

/// What a step is for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct ModeArg {
    /// Leave the backward side out: the losses of a step and nothing else, for evaluation
    #[arg(long)]
    forward_only: bool,
}

impl ModeArg {
    /// The mode that the flag asks for.
    pub(crate) fn mode(self) -> Mode {
        if self.forward_only { Mode::ForwardOnly } else { Mode::Training }
    }
}

pub(crate) fn parameter(text: &str) -> Result<(String, i64), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, such as v=2")?;
    let value = value
        .trim()
        .parse()
        .map_err(|_| format!("`{value}` is not an integer; write NAME=VALUE, such as v=2"))?;
    Ok((name.trim().to_owned(), value))
}

/// A command line that can't be carried out.
#[derive(Debug, Error, Diagnostic)]
pub(crate) enum JobError {
    /// A number is missing.
    #[error("`{flag}` is missing")]
    #[diagnostic(
        code(schedc::cli::missing_flag),
        help("say for how many, for example `schedc {command} {schedule} --ranks 4 --microbatches 8`")
    )]
    MissingFlag {
        /// The flag.
        flag: &'static str,
        /// The command.
        command: &'static str,
        /// The schedule.
        schedule: String,
    },
    /// A plan where a schedule is asked for.
    #[error("`{path}` is a plan, which has been compiled already")]
    #[diagnostic(
        code(schedc::cli::already_a_plan),
        help(
            "check it with `schedc verify {path}`, train by it with `schedc run {path}`, or name a schedule"
        )
    )]
    AlreadyAPlan {
        /// The file.
        path: String,
    },
    /// A flag asks for another shape than a plan file has.
    #[error("`{asked}` contradicts the plan, {has}")]
    #[diagnostic(
        code(schedc::cli::contradiction),
        help("leave the flag out, or compile the schedule again with it")
    )]
    Contradiction {
        /// The flag and its value.
        asked: String,
        /// What the plan has.
        has: String,
    },
    /// A flag asks for another size than a PyTorch schedule has.
    #[error("`{asked}` contradicts the PyTorch schedule, which has {has}")]
    #[diagnostic(
        code(schedc::cli::contradicts_torch),
        help("leave the flag out; a PyTorch schedule is for one number of ranks and microbatches")
    )]
    ContradictsTorch {
        /// The flag and its value.
        asked: String,
        /// What the file has.
        has: String,
    },
    /// A choice among schedules where there is one.
    #[error("`--schedule-name {name}` chooses from a `.sched` file, and `{schedule}` is {what}")]
    #[diagnostic(code(schedc::cli::nothing_to_choose), help("leave `--schedule-name` out"))]
    NothingToChoose {
        /// The flag's value.
        name: String,
        /// What was named.
        schedule: String,
        /// What that is.
        what: &'static str,
    },
    /// A parameter after the colon is no `name=value`.
    #[error("`{parameter}` in `{word}` sets no parameter")]
    #[diagnostic(
        code(schedc::cli::bad_parameter),
        help("write `name:parameter=value` with whole numbers, such as `interleaved:v=4,group=8`")
    )]
    BadParameter {
        /// What comes between two commas.
        parameter: String,
        /// The whole word.
        word: String,
    },
    /// Two values for a parameter.
    #[error("`--set {name}` is given twice")]
    #[diagnostic(code(schedc::cli::set_twice), help("keep one of the two"))]
    SetTwice {
        /// The parameter.
        name: String,
    },
}

/// What a job says that a command puts together itself.
pub(crate) struct Named {
    pub(crate) schedule: String,
    pub(crate) set: Vec<(String, i64)>,
    pub(crate) with: Vec<String>,
    pub(crate) ranks: Option<u32>,
    pub(crate) microbatches: Option<u32>,
    pub(crate) cost: CostArg,
    pub(crate) mode: ModeArg,
}

impl JobArgs {
    /// The job of a command that has words of its own for it.
    pub(crate) fn of(named: Named) -> Self {
        let Named { schedule, set, with, ranks, microbatches, cost, mode } = named;
        Self { schedule, with, ranks, microbatches, set, cost, mode, schedule_name: None }
    }

    /// The same job for numbers that are known from elsewhere, where it says none.
    pub(crate) fn with_numbers(&self, known: Option<(u32, u32)>) -> Self {
        let mut job = self.clone();
        job.ranks = job.ranks.or(known.map(|(ranks, _)| ranks));
        job.microbatches = job.microbatches.or(known.map(|(_, microbatches)| microbatches));
        job
    }

    /// The PyTorch schedule, where one was named.
    pub(crate) fn torch(&self, channel: Channel) -> Result<Option<Sound>, Failure> {
        match self.read()? {
            Some(Contents::Torch(bytes)) => self.foreign(&bytes, channel).map(Some),
            _ => Ok(None),
        }
    }

    /// The plan, where a plan file was named.
    pub(crate) fn plan_file(&self, model: &ModelArgs) -> Result<Option<Verified>, Failure> {
        match self.read()? {
            Some(Contents::Plan(_)) => self.plan(model).map(Some),
            _ => Ok(None),
        }
    }

    /// Compiles the schedule, or reads and verifies the plan, to be trained by: costs are then as fixed as the rest of a plan.
    pub(crate) fn plan(&self, model: &ModelArgs) -> Result<Verified, Failure> {
        self.plan_for("run", model)
    }

    /// As [`JobArgs::plan`], for another command than `run`: under any costs.
    pub(crate) fn plan_for(&self, command: &'static str, model: &ModelArgs) -> Result<Verified, Failure> {
        refuse_twice(&self.set)?;
        match self.read()? {
            Some(Contents::Plan(bytes)) => {
                self.refuse_choice("a plan")?;
                let plan =
                    super::verify::verified(&self.schedule, &bytes, &schedc::verify::Options::default())?;
                self.agree(&plan, model, command == "run")?;
                Ok(plan)
            }
            contents => self.compiled(command, contents, model),
        }
    }

    /// The costs of a plan's passes, messages and collectives.
    pub(crate) fn costs_of(&self, header: &Header) -> Result<Costs, Failure> {
        self.cost.spec()?.bind_plan(header).map_err(Failure::one)
    }

    /// What is known of a plan beside its durations: their unit, what a device could compute, what it would hold.
    pub(crate) fn known(&self, plan: &Verified) -> Result<Known, Failure> {
        let spec = self.cost.spec()?;
        let unit = spec.is_in_microseconds().then(|| "µs".to_owned());
        let Some(rates) = spec.rates() else { return Ok(Known { unit, ..Known::default() }) };
        let rate = rates.rate(&plan.header.model).map(|device_flops| Rate {
            step_flops: step_flops(&plan.header.model, plan.header.microbatches),
            device_flops,
            seconds: 1e-6,
        });
        let device =
            OnDevice { training: rates.training, reserved: rates.reserved(), memory: rates.memory() };
        Ok(Known { unit, rate, device: Some(device), over_time: false })
    }

    /// Compiles the schedule.
    pub(crate) fn compile(&self, model: &ModelArgs) -> Result<Verified, Failure> {
        refuse_twice(&self.set)?;
        match self.read()? {
            Some(Contents::Plan(_)) => {
                Err(Failure::usage(JobError::AlreadyAPlan { path: self.schedule.clone() }))
            }
            contents => self.compiled("compile", contents, model),
        }
    }

    /// What is in the file that was named; `None` where the library's schedule was.
    fn read(&self) -> Result<Option<Contents>, Failure> {
        let file = is_file_name(&self.schedule);
        file.then(|| files::read(Path::new(&self.schedule), Wanted::Job)).transpose()
    }

    fn compiled(
        &self,
        command: &'static str,
        contents: Option<Contents>,
        model: &ModelArgs,
    ) -> Result<Verified, Failure> {
        let missing = |flag| {
            let schedule = self.schedule.clone();
            Failure::usage(JobError::MissingFlag { flag, command, schedule })
        };
        let file = contents.is_some();
        let torch = match &contents {
            Some(Contents::Torch(bytes)) => Some(self.foreign(bytes, Channel::Gloo)?),
            _ => None,
        };
        let text = contents.map(Contents::into_bytes).unwrap_or_default();
        let input = match &torch {
            Some(sound) => Input::Torch(sound),
            None if file => {
                Input::File { name: &self.schedule, bytes: &text, schedule: self.schedule_name.as_deref() }
            }
            None => {
                self.refuse_choice("a name of the library")?;
                Input::Library(&self.schedule)
            }
        };
        let ranks = torch.as_ref().map(|sound| sound.rows().ranks() as u32).or(self.ranks);
        let microbatches = torch.as_ref().map(schedc::torch::Sound::microbatches).or(self.microbatches);
        let costs = self.cost.spec()?;
        let mut sources = Sources::default();
        let job = Job {
            input,
            with: &self.with,
            set: &self.set,
            ranks: ranks.ok_or_else(|| missing("--ranks"))?,
            microbatches: microbatches.ok_or_else(|| missing("--microbatches"))?,
            model: model.model(&self.cost)?,
            costs: &costs,
            retime: self.cost.retime,
            mode: self.mode.mode(),
        };
        driver::compile(&job, &mut sources).map_err(Failure::all)
    }

    /// A PyTorch schedule; flags may only say what it says. Messages are the plan's own, so that the laxest channel decides.
    fn foreign(&self, bytes: &[u8], channel: Channel) -> Result<Sound, Failure> {
        self.refuse_choice("a PyTorch schedule")?;
        let sound = super::verify::sound(&self.schedule, bytes, channel, None)?;
        super::verify::agree(&sound, self.ranks, self.microbatches)?;
        if let Some((name, value)) = self.set.first() {
            let (asked, has) = (format!("--set {name}={value}"), "no parameters".to_owned());
            return Err(Failure::usage(JobError::ContradictsTorch { asked, has }));
        }
        Ok(sound)
    }

    /// Refuses `--schedule-name` for what is no file of schedules.
    fn refuse_choice(&self, what: &'static str) -> Result<(), Failure> {
        let Some(name) = self.schedule_name.clone() else { return Ok(()) };
        Err(Failure::usage(JobError::NothingToChoose { name, schedule: self.schedule.clone(), what }))
    }

    /// Refuses flags that say something else than a plan file.
    pub(super) fn agree(&self, plan: &Verified, model: &ModelArgs, fixed_costs: bool) -> Result<(), Failure> {
        let header = &plan.plan().header;
        let numbers = [
            ("--ranks", self.ranks, header.ranks()),
            ("--microbatches", self.microbatches, header.microbatches),
        ];
        let compiled_for = |has: String| format!("which was compiled for {has}");
        let number = numbers.into_iter().find_map(|(flag, asked, has)| {
            let asked = asked.filter(|&asked| asked != has)?;
            Some((format!("{flag} {asked}"), compiled_for(has.to_string())))
        });
        let dims = || model.contradiction(header);
        let with = || {
            let asked =
                (!self.with.is_empty() && self.with != header.transforms).then(|| self.with.join(", "))?;
            let has = format!("transforms [{}]", header.transforms.join(", "));
            Some((format!("--with {asked}"), compiled_for(has)))
        };
        let set = || {
            let (name, value) = self.set.first()?;
            Some((format!("--set {name}={value}"), compiled_for("fixed parameters".to_owned())))
        };
        let cost = || {
            let asked = self.cost.asked().filter(|_| fixed_costs)?;
            Some((asked, compiled_for("fixed costs".to_owned())))
        };
        let mode = || {
            let contradicts = self.mode.forward_only && header.mode.is_training();
            contradicts.then(|| ("--forward-only".to_owned(), compiled_for("training".to_owned())))
        };
        let retime = || {
            let asked = self.cost.retime?;
            Some((format!("--retime {asked}"), compiled_for("the orders that it has".to_owned())))
        };
        match number.or_else(retime).or_else(dims).or_else(with).or_else(set).or_else(cost).or_else(mode) {
            Some((asked, has)) => Err(Failure::usage(JobError::Contradiction { asked, has })),
            None => Ok(()),
        }
    }
}

/// Takes a word apart that names a schedule and, after a colon, parameters of it: `interleaved:v=4,group=8`.
pub(crate) fn named(word: &str) -> Result<(String, Vec<(String, i64)>), Failure> {
    let cut = word.rsplit_once(':').filter(|(_, parameters)| parameters.contains('='));
    let (name, parameters) = cut.unwrap_or((word, ""));
    let bad = |parameter: &str| {
        let (parameter, word) = (parameter.to_owned(), word.to_owned());
        Failure::usage(JobError::BadParameter { parameter, word })
    };
    let own = parameters.split(',').filter(|_| cut.is_some());
    let own = own.map(|text| parameter(text).map_err(|_| bad(text)));
    Ok((name.to_owned(), own.collect::<Result<_, _>>()?))
}

/// Refuses two values for one parameter.
pub(crate) fn refuse_twice(set: &[(String, i64)]) -> Result<(), Failure> {
    let known = |at: usize, name: &str| set[..at].iter().any(|(other, _)| other == name);
    match set.iter().enumerate().find(|(at, (name, _))| known(*at, name)) {
        Some((_, (name, _))) => Err(Failure::usage(JobError::SetTwice { name: name.clone() })),
        None => Ok(()),
    }
}

/// Whether a word names a file rather than a schedule of the library. The library's names stay its own where a file in
/// the folder happens to have one; with a folder or an extension it is the file.
pub(crate) fn is_file_name(word: &str) -> bool {
    let path = Path::new(word);
    let of_library = || Library::load(&mut Sources::default()).schedule(word).is_some();
    path.extension().is_some() || word.contains(std::path::is_separator) || path.exists() && !of_library()
}
