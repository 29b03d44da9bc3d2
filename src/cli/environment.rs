//! The daemon's environment variables: one for each of its flags, read when it is the daemon that runs.
//!
//! clap reads the variables of a command's flags also where a subcommand is what was asked for, takes an empty one for a
//! value, and names the flag where a variable is wrong. So it is left to the help to know them by clap's `env`, and they
//! are read here: a variable that holds something becomes the flag that was not typed.

use super::daemon::Flags;
use super::values;
use clap::builder::{Resettable, StyledStr, TypedValueParser as _};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _};
use std::ffi::{OsStr, OsString};

/// Which flags came from which variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<(String, String)>);

impl Origins {
    /// The flag's name, for a message, with that of its variable if the value came from there.
    pub fn name(&self, flag: &str) -> String {
        match self.0.iter().find(|(from, _)| from == flag) {
            Some((_, variable)) => from_variable(flag, variable),
            None => flag.to_owned(),
        }
    }
}

fn from_variable(flag: &str, variable: &str) -> String {
    format!("{flag} (from {variable})")
}

impl Flags {
    /// The flags and variables that this process was started with. Ends it for `--help`, `--version`, and what is wrong.
    pub fn of_process() -> Flags {
        Flags::read(std::env::args_os(), &|name| std::env::var_os(name)).unwrap_or_else(|error| error.exit())
    }

    /// Reads a command line, the program's name first, and where it names no tool, the variables of what was not typed.
    ///
    /// # Errors
    /// What is wrong, as clap tells it, or the help that was asked for.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Flags, clap::Error> {
        let mut words: Vec<OsString> = arguments.into_iter().collect();
        let matches = match without_variables().try_get_matches_from(&words) {
            // The help names the variables.
            Err(error) if error.kind() == ErrorKind::DisplayHelp => {
                return Err(Flags::command().try_get_matches_from(&words).err().unwrap_or(error));
            }
            matches => matches.map_err(|error| with_tip(error, &words))?,
        };
        if matches.subcommand_name().is_some() {
            return Flags::from_arg_matches(&matches);
        }
        let mut origins = Origins::default();
        let program = words.len().min(1);
        for argument in Flags::command().get_arguments() {
            let (Some(flag), Some(name)) = (argument.get_long(), argument.get_env().and_then(OsStr::to_str)) else {
                continue;
            };
            let is_typed = matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine);
            let Some(value) = variable(name).filter(|value| !value.is_empty() && !is_typed) else { continue };
            let flag = format!("--{flag}");
            if let Some(word) = typed(argument, &flag, name, &value)? {
                words.insert(program, word);
            }
            origins.0.push((flag, name.to_owned()));
        }
        let mut flags = Flags::from_arg_matches(&without_variables().try_get_matches_from(&words)?)?;
        flags.origins = origins;
        Ok(flags)
    }
}

/// With a word about commas, where one of them has cut what is wrong out of one of these words.
fn with_tip(mut error: clap::Error, words: &[impl AsRef<OsStr>]) -> clap::Error {
    let is_bind =
        matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::String(arg)) if arg.starts_with("--bind"));
    let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidValue).filter(|_| is_bind) else {
        return error;
    };
    let (first, later) = (format!("{wrong},"), format!(",{wrong}"));
    let is_cut = words
        .iter()
        .filter_map(|word| word.as_ref().to_str())
        .any(|word| word.contains(&first) || word.contains(&later));
    if is_cut {
        let tip = StyledStr::from("a comma ends an endpoint");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// What is typed, without what the environment holds.
fn without_variables() -> Command {
    Flags::command().mut_args(|argument| argument.env(Resettable::Reset))
}

/// The word that says on a command line what the variable says, if any is needed.
fn typed(argument: &Arg, flag: &str, variable: &str, value: &OsStr) -> Result<Option<OsString>, clap::Error> {
    let told = |mut error: clap::Error| {
        error.insert(ContextKind::InvalidArg, ContextValue::String(from_variable(flag, variable)));
        error
    };
    let command = without_variables();
    if !argument.get_action().takes_values() {
        let is_on = values::switch.parse_ref(&command, None, value).map_err(told)?;
        return Ok(is_on.then(|| flag.into()));
    }
    let mut word = OsString::from(format!("{flag}="));
    word.push(value);
    // Alone, so that whatever is wrong is wrong with this one.
    command.try_get_matches_from([OsStr::new("kvd"), &word]).map_err(|error| told(with_tip(error, &[&word])))?;
    Ok(Some(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Tool;
    use crate::log::SyncPolicy;

    fn read(line: &str, variables: &[(&str, &str)]) -> Result<Flags, String> {
        let words = line.split_whitespace().map(OsString::from);
        let variable = |name: &str| variables.iter().find(|(named, _)| *named == name).map(|(_, value)| value.into());
        Flags::read(words, &variable).map_err(|error| error.to_string())
    }

    #[test]
    fn a_variable_is_the_flag_that_was_not_typed() {
        let variables = [("KVD_FSYNC", "never"), ("KVD_MAX_VALUE", "1KiB"), ("KVD_INSECURE_BIND", "yes")];
        let flags = read("kvd --max-value 2KiB", &variables).expect("is right");
        assert_eq!((flags.fsync, flags.max_value.as_u64(), flags.insecure_bind), (SyncPolicy::Never, 2048, true));
        assert!(!read("kvd", &[("KVD_INSECURE_BIND", "off")]).expect("is right").insecure_bind);
        let flags = read("kvd", &[("KVD_BIND", "tcp://127.0.0.1:1, tcp://[::1]:2")]).expect("is right");
        assert_eq!(flags.bind.len(), 2);
    }

    #[test]
    fn a_tool_reads_none_of_the_daemons_variables() {
        let wrong = ["KVD_SEGMENT_SIZE", "KVD_BIND", "KVD_INSECURE_BIND", "KVD_DATA_DIR"].map(|name| (name, "bogus"));
        let flags = read("kvd check data", &wrong).expect("is right");
        assert!(matches!(flags.tool, Some(Tool::Check { .. })));
        read("kvd bench", &wrong).expect("is right");
    }

    #[test]
    fn a_variable_that_is_empty_is_not_set() {
        let command = Flags::command();
        let names = command.get_arguments().filter_map(|argument| argument.get_env().and_then(OsStr::to_str));
        let empty: Vec<_> = names.map(|name| (name, "")).collect();
        assert!(empty.len() >= 13);
        let (with, without) = (read("kvd", &empty), read("kvd", &[]));
        assert_eq!(format!("{with:?}"), format!("{without:?}"));
    }

    #[test]
    fn a_variable_that_is_wrong_is_named_with_its_flag() {
        let command = Flags::command();
        for argument in command.get_arguments() {
            let Some(name) = argument.get_env().and_then(OsStr::to_str) else { continue };
            if let Err(error) = read("kvd", &[(name, "\u{0}bogus")]) {
                let flag = format!("--{}", argument.get_long().expect("a flag"));
                assert!(error.contains(name) && error.contains(&flag), "{name}: {error}");
            } else {
                assert!(["KVD_DATA_DIR", "KVD_LOG_LEVEL"].contains(&name), "{name} takes whatever it is given");
            }
        }
    }

    #[test]
    fn a_comma_is_told_of_where_there_was_one() {
        let tip = "a comma ends an endpoint";
        for (line, variable, is_told) in [
            ("kvd --bind 127.0.0.1:43000", "", false),
            ("kvd --bind ipc:///tmp/a,b", "", true),
            ("kvd --bind=ipc:///tmp/a,b", "", true),
            ("kvd --bind tcp://127.0.0.1:1, --bind nonsense", "", true),
            ("kvd --bind 127.0.0.1:1,tcp://127.0.0.1:2", "", true),
            ("kvd --segment-size 1,2", "", false),
            ("kvd", "ipc:///tmp/a,b", true),
            ("kvd", "127.0.0.1:43000", false),
        ] {
            let error = read(line, &[("KVD_BIND", variable)]).expect_err("is wrong");
            assert_eq!(error.contains(tip), is_told, "{line} {variable}: {error}");
        }
        let error = read("kvd", &[("KVD_EXISTING", "bogus")]).expect_err("is wrong");
        assert!(error.contains("'bogus'") && error.contains("true or false, 1 or 0, yes or no"), "{error}");
    }

    #[test]
    fn the_help_names_them() {
        let help = read("kvd --help", &[]).expect_err("the help");
        assert!(help.contains("[env: KVD_SEGMENT_SIZE"), "{help}");
    }
}
