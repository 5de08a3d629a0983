//! `treadle.toml`: one table a decision, read by programs, written by `--save`, and edited by people.
//!
//! *Guarantees*: tables, keys and comments of others stay as they are, also those inside a decision's table.

use std::fs;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, InlineTable, Item, Table, Value, value};

use super::super::error::ChoiceError;
use super::super::plan::Plan;
use super::evidence::{Evidence, Status};
use super::{FILE, FOLDER, check_name, write_whole};

/// The decision of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// The table's key.
    pub name: String,
    /// The plan that programs run.
    pub plan: Plan,
    /// The function as the user wrote it.
    pub function: Option<String>,
    /// Where the inputs come from.
    pub items: Option<String>,
    /// Whether a tuple is the list of arguments.
    pub star: bool,
    /// Whether no input is run twice.
    pub once: bool,
    /// At most so many inputs.
    pub limit: Option<u64>,
    /// The requirements.
    pub targets: Option<String>,
    /// Proposed or accepted.
    pub status: Option<Status>,
    /// When it was decided.
    pub decided: Option<String>,
    /// The page, from the file's folder.
    pub record: Option<String>,
    /// The folder that function and items are found from, from the file's folder.
    pub folder: Option<String>,
}

impl Decided {
    /// The stem of its page and evidence, such as `docs/decisions/0001-name`; `None` where `record` names no page there.
    pub fn stem(&self) -> Option<&str> {
        let stem = self.record.as_deref()?.strip_suffix(".md")?;
        let file = stem.strip_prefix(FOLDER)?.strip_prefix('/')?;
        (!file.is_empty() && !file.contains(['/', '\\'])).then_some(stem)
    }
}

/// A `treadle.toml` that was read.
#[derive(Debug)]
pub struct Settings {
    /// Where it is.
    pub path: PathBuf,
    document: DocumentMut,
}

impl Settings {
    /// The file in `directory`, or an empty one that would be written there.
    pub fn read(path: PathBuf) -> Result<Self, ChoiceError> {
        let document = match fs::read_to_string(&path) {
            Ok(text) => text
                .parse()
                .map_err(|error: toml_edit::TomlError| ChoiceError::Usage {
                    message: format!("{} is not valid TOML", path.display()),
                    hint: Some("mend the line below, then run this again".to_owned()),
                    detail: Some(error.to_string()),
                })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => DocumentMut::new(),
            Err(error) => {
                return Err(ChoiceError::usage(
                    format!("cannot read {}: {error}", path.display()),
                    "it must be a text file in UTF-8 that you may read",
                ));
            }
        };
        let settings = Self { path, document };
        if let Some(found) = settings.document.get("decision")
            && found.as_table_like().is_none()
        {
            return Err(ChoiceError::usage(
                format!("`decision` in {} is not a table", settings.path.display()),
                "rename it: treadle keeps its decisions in [decision.NAME]",
            ));
        }
        Ok(settings)
    }

    /// The path of the nearest file in `directory` or above it.
    pub fn nearest(directory: &Path) -> Option<PathBuf> {
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
        directory
            .ancestors()
            .map(|folder| folder.join(FILE))
            .find(|path| path.is_file())
    }

    /// The nearest file in `directory` or above it; `name` is what is wanted of it, for the hint.
    pub fn find(directory: &Path, name: &str) -> Result<Self, ChoiceError> {
        match Self::nearest(directory) {
            Some(path) => Self::read(path),
            None => Err(ChoiceError::usage(
                format!(
                    "no {FILE} in {} or any folder above it",
                    directory.display()
                ),
                format!(
                    "record a decision with: treadle compare TARGET --items SPEC --save {name}"
                ),
            )),
        }
    }

    /// The folder that it is in.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The names of all decisions, in the file's order.
    pub fn names(&self) -> Vec<String> {
        self.document
            .get("decision")
            .and_then(Item::as_table_like)
            .map(|table| table.iter().map(|(key, _)| key.to_owned()).collect())
            .unwrap_or_default()
    }

    /// The decision `name`.
    pub fn decision(&self, name: &str) -> Result<Decided, ChoiceError> {
        let at = self.path.display();
        let Some(item) = self
            .document
            .get("decision")
            .and_then(Item::as_table_like)
            .and_then(|table| table.get(name))
        else {
            let known = self.names();
            let hint = if known.is_empty() {
                format!("record it with: treadle compare TARGET --items SPEC --save {name}")
            } else {
                format!("recorded are: {}", known.join(", "))
            };
            return Err(ChoiceError::usage(
                format!("no decision `{name}` in {at}"),
                hint,
            ));
        };
        let table = item.as_table_like().ok_or_else(|| {
            ChoiceError::usage(
                format!("decision `{name}` in {at} is not a table"),
                format!("write it as [decision.{name}] with a plan, or decide it again with --save {name}"),
            )
        })?;
        let wrong = |what: &str| {
            ChoiceError::usage(
                format!("the plan of decision `{name}` in {at} {what}"),
                "it looks like: plan = { processes = 8 }, and { } is serial",
            )
        };
        let sizes = table
            .get("plan")
            .ok_or_else(|| wrong("is missing"))?
            .as_table_like()
            .ok_or_else(|| wrong("is not a table"))?;
        let mut plan = Plan::SERIAL;
        for (key, item) in sizes.iter() {
            let size = item
                .as_integer()
                .and_then(|size| u32::try_from(size).ok())
                .ok_or_else(|| wrong(&format!("has a size `{key}` that is not a whole number")))?;
            match key {
                "threads" => plan.threads = Some(size),
                "processes" => plan.processes = Some(size),
                "coroutines" => plan.coroutines = Some(size),
                "interpreters" => plan.interpreters = Some(size),
                "chunk" => plan.chunk = Some(size),
                other => {
                    return Err(wrong(&format!("names `{other}`, which is not a strategy")));
                }
            }
        }
        plan.check()?;
        let text = |key: &str| match table.get(key) {
            None => Ok(None),
            Some(item) => item
                .as_str()
                .map(|text| Some(text.to_owned()))
                .ok_or_else(|| {
                    ChoiceError::usage(
                        format!("`{key}` of decision `{name}` in {at} is not a text"),
                        format!("put it in quotes, or decide it again with --save {name}"),
                    )
                }),
        };
        Ok(Decided {
            name: name.to_owned(),
            plan,
            function: text("function")?,
            items: text("items")?,
            star: table.get("star").and_then(Item::as_bool).unwrap_or(false),
            once: table.get("once").and_then(Item::as_bool).unwrap_or(false),
            limit: table
                .get("limit")
                .and_then(Item::as_integer)
                .and_then(|limit| u64::try_from(limit).ok()),
            targets: text("targets")?,
            status: match text("status")?.as_deref() {
                Some("proposed") => Some(Status::Proposed),
                Some("accepted") => Some(Status::Accepted),
                _ => None,
            },
            decided: text("decided")?,
            record: text("record")?,
            folder: text("folder")?,
        })
    }

    /// Puts a decision in, in place of the one of the same name; `folder` is where function and items are found from.
    pub(super) fn put(&mut self, evidence: &Evidence, stem: &str, folder: Option<&str>) {
        let decisions = self.document.entry("decision").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let Some(decisions) = decisions.as_table_like_mut() else {
            return; // `read` has refused it
        };
        let item = decisions
            .entry(&evidence.name)
            .or_insert(Item::Table(Table::new()));
        if item.as_table_like().is_none() {
            *item = Item::Table(Table::new());
        }
        let comparison = &evidence.comparison;
        let limit = comparison.items.limit;
        let mut sizes = InlineTable::new();
        for (name, size) in [
            ("processes", evidence.plan.processes),
            ("interpreters", evidence.plan.interpreters),
            ("threads", evidence.plan.threads),
            ("coroutines", evidence.plan.coroutines),
            ("chunk", evidence.plan.chunk),
        ] {
            if let Some(size) = size {
                sizes.insert(name, Value::from(i64::from(size)));
            }
        }
        let targets = comparison.targets.join(",");
        let entries: [(&str, Option<Value>); 11] = [
            ("plan", Some(sizes.into())),
            ("function", Some(evidence.function.as_str().into())),
            ("items", Some(comparison.items.spec.as_str().into())),
            ("star", comparison.items.star.then(|| true.into())),
            ("once", comparison.items.once.then(|| true.into())),
            (
                "limit",
                (limit != super::super::request::default_limit())
                    .then(|| i64::try_from(limit).unwrap_or(i64::MAX).into()),
            ),
            ("targets", (!targets.is_empty()).then(|| targets.into())),
            ("folder", folder.map(Value::from)),
            ("status", Some(evidence.status.name().into())),
            ("decided", Some(evidence.decided.as_str().into())),
            ("record", Some(format!("{stem}.md").into())),
        ];
        let Some(table) = item.as_table_like_mut() else {
            return;
        };
        for (key, wanted) in entries {
            match wanted {
                None => {
                    table.remove(key);
                }
                Some(mut new) => {
                    // A remark behind the old value stays there.
                    if let Some(old) = table.get(key).and_then(Item::as_value) {
                        *new.decor_mut() = old.decor().clone();
                    }
                    match table.get_mut(key) {
                        Some(item) => *item = Item::Value(new),
                        None => {
                            table.insert(key, value(new));
                        }
                    }
                }
            }
        }
    }

    /// Writes the file.
    pub(super) fn write(&self) -> Result<(), ChoiceError> {
        write_whole(&self.path, &self.document.to_string())
    }

    /// The decisions asked for, all of them when none is named; the first that cannot be read is the error.
    pub fn decisions(&self, names: &[String]) -> Result<Vec<Decided>, ChoiceError> {
        let wanted = if names.is_empty() {
            self.names()
        } else {
            names.to_vec()
        };
        if wanted.is_empty() {
            return Err(ChoiceError::usage(
                format!("{} records no decision", self.path.display()),
                "record one with: treadle compare TARGET --items SPEC --save NAME",
            ));
        }
        let mut found: Vec<Decided> = Vec::new();
        for name in wanted {
            if found.iter().all(|one| one.name != name) {
                if names.is_empty() {
                    check_name(&name)?;
                }
                found.push(self.decision(&name)?);
            }
        }
        Ok(found)
    }
}

/// What is wrong with the numbers of the records in a folder, in words; nothing in a folder that is not there.
pub fn numbering(folder: &Path) -> Vec<String> {
    let mut stems: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let stem = name.to_str()?.strip_suffix(".md")?;
            number(stem).map(|_| stem.to_owned())
        })
        .collect();
    stems.sort();
    let mut found = Vec::new();
    for (place, stem) in stems.iter().enumerate() {
        for other in &stems[place + 1..] {
            if number(stem) == number(other) {
                found.push(format!(
                    "two records have the number {:04}: {stem}.md and {other}.md; rename the page and the evidence of one to the next \
                     free number, and its `record` in {FILE} with them",
                    number(stem).unwrap_or(0)
                ));
            } else if name_of(stem) == name_of(other) {
                found.push(format!(
                    "`{}` has two records, {stem}.md and {other}.md; keep the one that {FILE} names and delete the other",
                    name_of(stem)
                ));
            }
        }
    }
    found
}

/// The number of a record's stem `NNNN-name`.
pub(super) fn number(stem: &str) -> Option<u32> {
    let (digits, _) = stem.split_once('-')?;
    digits.parse().ok()
}

/// The name of a record's stem `NNNN-name`.
pub(super) fn name_of(stem: &str) -> &str {
    stem.split_once('-').map_or(stem, |(_, name)| name)
}
