//! The frames dialect: what it accepts, what it refuses and how it says so.

use kvd::command::{
    Absent, Command, Condition, DEFAULT_SCAN_COUNT, End, ErrorCode, Expiry, Limits, MAX_BODY_FRAMES, MAX_KEY,
    MAX_SCAN_COUNT, NewCounter, NewEntry, Reply, SetOptions, StoredValue,
};
use kvd::mutation::{Key, PICKLED};
use kvd::wire::{Frame, ReplyFrames, WireError, frames};
use proptest::prelude::*;

const LIMITS: Limits = Limits { max_value: 100 };

/// Decodes a line of words, a frame each; `''` is the empty frame. What was decoded is shown to `check`.
fn decode<T>(line: &str, check: impl FnOnce(Result<Command<'_>, WireError>) -> T) -> T {
    let words: Vec<&[u8]> = line.split(' ').map(|word| if word == "''" { "" } else { word }.as_bytes()).collect();
    check(frames::decode(&words, &LIMITS))
}

fn accepts(line: &str, command: &Command<'_>) {
    decode(line, |decoded| assert_eq!(decoded.as_ref(), Ok(command), "{line}"));
}

/// Asserts a refusal with this code, whose message holds this text.
fn refuses(line: &str, code: ErrorCode, text: &str) {
    decode(line, |decoded| {
        let error = decoded.expect_err(line);
        assert_eq!(error.code, code, "{line}: {error}");
        assert!(error.message.contains(text), "{line}: {error}");
    });
}

fn encode(reply: &Reply<'_>) -> Vec<Vec<u8>> {
    let mut into = ReplyFrames::default();
    frames::encode(reply, &mut into);
    into.parcel()
        .map(|frame| match frame {
            Frame::Small(bytes) => bytes.to_vec(),
            Frame::Large(bytes) => bytes,
        })
        .collect()
}

const K: Key<'_> = Key::bytes(b"k");
const L: Key<'_> = Key::bytes(b"l");

#[test]
fn every_verb_in_any_case() {
    let pairs: Vec<(&str, Command<'_>)> = vec![
        ("PING", Command::Ping),
        ("GET k", Command::Get { key: K }),
        ("SET k v", Command::Set { key: K, value: b"v".into(), options: SetOptions::default() }),
        ("DEL k l", Command::Delete { keys: vec![K, L] }),
        ("EXISTS k k", Command::Exists { keys: vec![K, K] }),
        ("MGET k", Command::GetMany { keys: vec![K] }),
        ("MSET k v l ''", Command::SetMany { pairs: vec![(K, b"v"), (L, b"")] }),
        ("INCR k", Command::Increment { key: K, delta: 1, absent: Absent::default() }),
        ("INCR k -5", Command::Increment { key: K, delta: -5, absent: Absent::default() }),
        ("INCR k -9223372036854775808", Command::Increment { key: K, delta: i64::MIN, absent: Absent::default() }),
        ("APPEND k v", Command::Extend { key: K, bytes: b"v", end: End::Back }),
        ("PREPEND k ''", Command::Extend { key: K, bytes: b"", end: End::Front }),
        ("TOUCH k 0", Command::Touch { key: K, expiry: Expiry::Never }),
        ("TOUCH k 7", Command::Touch { key: K, expiry: Expiry::In(7) }),
        ("TTL k", Command::TimeToLive { key: K }),
        ("GETDEL k", Command::GetDelete { key: K }),
        ("MGETS k l", Command::GetEntries { keys: vec![K, L] }),
        ("DELIF k 18446744073709551615", Command::DeleteIf { key: K, version: u64::MAX }),
        ("GETEX k PERSIST", Command::GetTouch { key: K, expiry: Expiry::Never }),
        ("SCAN 0", Command::Scan { cursor: 0, prefix: b"", count: DEFAULT_SCAN_COUNT }),
        ("COUNT", Command::Count),
        ("FLUSH", Command::Flush { prefix: None }),
        ("SYNC", Command::Sync),
        ("COMPACT", Command::Compact),
        ("STATS", Command::Stats),
        ("VERSION", Command::Version),
    ];
    for (line, command) in pairs {
        accepts(line, &command);
        let (verb, rest) = line.split_at(line.find(' ').unwrap_or(line.len()));
        accepts(&format!("{}{rest}", verb.to_lowercase()), &command);
        let (first, others) = verb.split_at(1);
        accepts(&format!("{first}{}{rest}", others.to_lowercase()), &command);
    }
}

#[test]
fn the_options_of_set() {
    let set = |options| Command::Set { key: K, value: b"v".into(), options };
    let plain = SetOptions::default();
    let last = u64::MAX >> 1;
    accepts("SET k v TTL 0", &set(plain));
    accepts("SET k v ttl 5", &set(SetOptions { expiry: Expiry::In(5), ..plain }));
    accepts(&format!("SET k v TTL {last}"), &set(SetOptions { expiry: Expiry::In(last), ..plain }));
    accepts("SET k v At 0", &set(SetOptions { expiry: Expiry::At(0), ..plain }));
    accepts("SET k v nx", &set(SetOptions { condition: Condition::Absent, ..plain }));
    accepts("SET k v XX", &set(SetOptions { condition: Condition::Present, ..plain }));
    let version = SetOptions { condition: Condition::Version(u64::MAX), ..plain };
    accepts("SET k v IF 18446744073709551615", &set(version));
    accepts("SET k v FLAGS 2147483647", &set(SetOptions { flags: PICKLED - 1, ..plain }));
    accepts("SET k v PICKLED", &set(SetOptions { flags: PICKLED, ..plain }));
    let all = SetOptions { expiry: Expiry::At(9), condition: Condition::Version(3), flags: PICKLED | 2 };
    accepts("SET k v PICKLED IF 3 FLAGS 2 AT 9", &set(all));
    accepts("SET k v flags 2 at 9 pickled if 3", &set(all));
    // Where a key or a value stands, an option's name is no option.
    accepts("SET NX TTL", &Command::Set { key: Key::bytes(b"NX"), value: b"TTL".into(), options: plain });
}

#[test]
fn set_refuses_options() {
    use ErrorCode::BadArgument as Bad;
    refuses("SET k v TTL", Bad, "SET ends after TTL");
    refuses("SET k v AT", Bad, "SET ends after AT");
    refuses("SET k v NX IF", Bad, "SET ends after IF");
    refuses("SET k v FLAGS", Bad, "SET ends after FLAGS");
    refuses("SET k v TTL 5 AT 9", Bad, "one of TTL and AT may be given only once");
    refuses("SET k v TTL 5 TTL 5", Bad, "one of TTL and AT may be given only once");
    refuses("SET k v TTL 0 AT 9", Bad, "one of TTL and AT may be given only once");
    refuses("SET k v NX XX", Bad, "one of NX, XX and IF may be given only once");
    refuses("SET k v IF 1 nx", Bad, "one of NX, XX and IF may be given only once");
    refuses("SET k v NX NX", Bad, "one of NX, XX and IF may be given only once");
    refuses("SET k v FLAGS 1 FLAGS 1", Bad, "FLAGS may be given only once");
    refuses("SET k v PICKLED PICKLED", Bad, "PICKLED may be given only once");
    refuses("SET k v FLAGS 2147483648", Bad, "from 0 to 2147483647");
    refuses("SET k v FLAGS -1", Bad, "\"-1\"");
    refuses("SET k v TTL 9223372036854775808", Bad, "from 0 to 9223372036854775807");
    refuses("SET k v AT 9223372036854775808", Bad, "from 0 to 9223372036854775807");
    refuses("SET k v IF 18446744073709551616", Bad, "from 0 to 18446744073709551615");
    for number in ["''", "+5", "05", "5.0", "0x5", "five", "-5", "5ms"] {
        refuses(&format!("SET k v TTL {number}"), Bad, "TTL is a decimal integer");
    }
    refuses("SET k v TTLS 5", Bad, "SET has no option \"TTLS\"");
    refuses("SET k v ''", Bad, "SET has no option \"\"");
}

#[test]
fn the_options_of_incr() {
    let incr = |delta, absent| Command::Increment { key: K, delta, absent };
    let made = |initial, expiry, flags| Absent::Make(NewCounter { initial, expiry, flags });
    accepts("INCR k XX", &incr(1, Absent::Miss));
    accepts("INCR k 5 xx", &incr(5, Absent::Miss));
    accepts("INCR k INIT -3", &incr(1, made(-3, Expiry::Never, 0)));
    accepts("INCR k -2 FLAGS 9 TTL 60 init 7", &incr(-2, made(7, Expiry::In(60), 9)));
    accepts("INCR k AT 60", &incr(1, made(0, Expiry::At(60), 0)));
    accepts("INCR k 1 TTL 0", &incr(1, Absent::default()));
    // Where the key stands, an option's name is no option.
    accepts("INCR XX", &Command::Increment { key: Key::bytes(b"XX"), delta: 1, absent: Absent::default() });
}

#[test]
fn incr_refuses_options() {
    use ErrorCode::BadArgument as Bad;
    for others in ["INIT 0", "FLAGS 0", "TTL 0", "AT 5"] {
        refuses(&format!("INCR k XX {others}"), Bad, "can't go with it");
        refuses(&format!("INCR k {others} XX"), Bad, "can't go with it");
    }
    refuses("INCR k XX XX", Bad, "XX may be given only once");
    refuses("INCR k INIT 1 INIT 1", Bad, "INIT may be given only once");
    refuses("INCR k TTL 5 AT 9", Bad, "one of TTL and AT may be given only once");
    refuses("INCR k INIT", Bad, "INCR ends after INIT");
    refuses("INCR k INIT +1", Bad, "INIT is a decimal integer");
    refuses("INCR k FLAGS 2147483648", Bad, "from 0 to 2147483647");
    refuses("INCR k XX 5", Bad, "INCR has no option \"5\"");
    refuses("INCR k NX", Bad, "INCR has no option \"NX\"");
    refuses("INCR k 1 2", Bad, "INCR has no option \"2\"");
    refuses("INCR k ''", Bad, "the delta of INCR is a decimal integer");
}

#[test]
fn the_forms_of_msets() {
    let entry = |key, value, flags| NewEntry { key, value, flags };
    let two = vec![entry(K, &b"v"[..], 0), entry(L, b"", PICKLED - 1)];
    let msets = |entries: &Vec<_>, expiry| Command::SetEntries { entries: entries.clone(), expiry };
    accepts("MSETS KEYS k v 0 l '' 2147483647", &msets(&two, Expiry::Never));
    accepts("msets ttl 5 keys k v 0 l '' 2147483647", &msets(&two, Expiry::In(5)));
    accepts("MSETS AT 9 KEYS k v 0 l '' 2147483647", &msets(&two, Expiry::At(9)));
    // Behind KEYS nothing is an option.
    let named = vec![entry(Key::bytes(b"KEYS"), b"TTL", 1), entry(Key::bytes(b"AT"), b"KEYS", 2)];
    accepts("MSETS KEYS KEYS TTL 1 AT KEYS 2", &msets(&named, Expiry::Never));
}

#[test]
fn msets_refuses_what_is_no_list() {
    use ErrorCode::BadArgument as Bad;
    const FORM: &str = "the form is MSETS [TTL milliseconds | AT unix-milliseconds] KEYS key value flags";
    for line in ["MSETS", "MSETS TTL 5", "MSETS KEYS", "MSETS KEYS k", "MSETS KEYS k v", "MSETS KEYS k v 0 l"] {
        refuses(line, Bad, FORM);
    }
    refuses("MSETS TTL 5 AT 9 KEYS k v 0", Bad, "one of TTL and AT may be given only once");
    refuses("MSETS TTL", Bad, "MSETS ends after TTL");
    refuses("MSETS k v 0", Bad, "MSETS has no option \"k\"");
    refuses("MSETS KEYS k v x", Bad, "a flag of MSETS is a decimal integer");
    refuses("MSETS KEYS k v 2147483648", Bad, "from 0 to 2147483647");
    refuses("MSETS KEYS '' v 0", Bad, "a key has at least 1 byte");
    let long = "v".repeat(LIMITS.max_value + 1);
    refuses(&format!("MSETS KEYS k {long} 0"), ErrorCode::TooBig, "a value of 101 bytes");
}

#[test]
fn getex_has_one_option_and_delif_a_version() {
    use ErrorCode::BadArgument as Bad;
    let getex = |expiry| Command::GetTouch { key: K, expiry };
    accepts("GETEX k ttl 5", &getex(Expiry::In(5)));
    accepts("GETEX k TTL 0", &getex(Expiry::Never));
    accepts("GETEX k AT 0", &getex(Expiry::At(0)));
    for line in ["GETEX", "GETEX k"] {
        refuses(line, Bad, "the form is GETEX key TTL milliseconds | AT unix-milliseconds | PERSIST");
    }
    refuses("GETEX k PERSIST TTL 5", Bad, "one of TTL, AT and PERSIST may be given only once");
    refuses("GETEX k AT 5 TTL 5", Bad, "one of TTL, AT and PERSIST may be given only once");
    refuses("GETEX k TTL", Bad, "GETEX ends after TTL");
    refuses("GETEX k EX 5", Bad, "GETEX has no option \"EX\"");
    for line in ["DELIF", "DELIF k", "DELIF k 1 2"] {
        refuses(line, Bad, "the form is DELIF key version");
    }
    refuses("DELIF k -1", Bad, "the version of DELIF is a decimal integer");
}

#[test]
fn scan_and_flush_have_options() {
    use ErrorCode::BadArgument as Bad;
    let scan = |cursor, prefix, count| Command::Scan { cursor, prefix, count };
    accepts("SCAN 18446744073709551615 count 7 prefix p", &scan(u64::MAX, b"p", 7));
    accepts("SCAN 1 PREFIX ''", &scan(1, b"", DEFAULT_SCAN_COUNT));
    accepts("SCAN 0 COUNT 10000", &scan(0, b"", MAX_SCAN_COUNT));
    accepts("SCAN 0 COUNT 18446744073709551615", &scan(0, b"", MAX_SCAN_COUNT));
    accepts("FLUSH prefix p", &Command::Flush { prefix: Some(b"p") });
    accepts("FLUSH PREFIX ''", &Command::Flush { prefix: Some(b"") });
    refuses("SCAN 18446744073709551616", Bad, "cursor");
    refuses("SCAN x", Bad, "cursor");
    refuses("SCAN 0 COUNT 0", Bad, "at least 1");
    refuses("SCAN 0 COUNT -1", Bad, "COUNT");
    refuses("SCAN 0 COUNT", Bad, "SCAN ends after COUNT");
    refuses("SCAN 0 PREFIX", Bad, "SCAN ends after PREFIX");
    refuses("SCAN 0 PREFIX a PREFIX a", Bad, "PREFIX may be given only once");
    refuses("SCAN 0 COUNT 5 COUNT 5", Bad, "COUNT may be given only once");
    refuses("SCAN 0 MATCH a*", Bad, "SCAN has no option \"MATCH\"");
    let long = "p".repeat(MAX_KEY + 1);
    refuses(&format!("SCAN 0 PREFIX {long}"), ErrorCode::TooBig, "prefix of 65537 bytes");
    refuses(&format!("FLUSH PREFIX {long}"), ErrorCode::TooBig, "prefix of 65537 bytes");
    let longest = &long[1..];
    accepts(&format!("FLUSH PREFIX {longest}"), &Command::Flush { prefix: Some(longest.as_bytes()) });
}

#[test]
fn a_wrong_number_of_arguments_names_the_form() {
    for (lines, form) in [
        (&["PING x"][..], "PING"),
        (&["GET", "GET k l"], "GET key"),
        (&["SET", "SET k"], "SET key value [TTL milliseconds | AT unix-milliseconds]"),
        (&["DEL"], "DEL key [key ...]"),
        (&["EXISTS"], "EXISTS key [key ...]"),
        (&["MGET"], "MGET key [key ...]"),
        (&["MSET", "MSET k", "MSET k v l"], "MSET key value [key value ...]"),
        (&["INCR"], "INCR key [delta] [XX | [INIT n] [FLAGS n]"),
        (&["MGETS"], "MGETS key [key ...]"),
        (&["APPEND k", "APPEND k v w"], "APPEND key bytes"),
        (&["PREPEND k", "PREPEND k v w"], "PREPEND key bytes"),
        (&["TOUCH k", "TOUCH k 1 2"], "TOUCH key milliseconds"),
        (&["TTL", "TTL k l"], "TTL key"),
        (&["GETDEL", "GETDEL k l"], "GETDEL key"),
        (&["SCAN"], "SCAN cursor [PREFIX p] [COUNT n]"),
        (&["COUNT x"], "COUNT"),
        (&["FLUSH x", "FLUSH PREFIX", "FLUSH PREFIX a b", "FLUSH SUFFIX a"], "FLUSH [PREFIX p]"),
        (&["SYNC x"], "SYNC"),
        (&["COMPACT x"], "COMPACT"),
        (&["STATS x"], "STATS"),
        (&["VERSION x"], "VERSION"),
    ] {
        for line in lines {
            refuses(line, ErrorCode::BadArgument, &format!("the form is {form}"));
        }
    }
}

#[test]
fn numbers_of_incr_and_touch() {
    use ErrorCode::BadArgument as Bad;
    for delta in ["''", "+1", "01", "-0", "--1", "9223372036854775808", "1e3"] {
        refuses(&format!("INCR k {delta}"), Bad, "the delta of INCR");
    }
    refuses("TOUCH k -1", Bad, "the time of TOUCH");
    refuses("TOUCH k 9223372036854775808", Bad, "the time of TOUCH");
}

#[test]
fn keys_and_values_over_their_limits() {
    use ErrorCode::{BadArgument, TooBig};
    let (key, long) = ("k".repeat(MAX_KEY), "k".repeat(MAX_KEY + 1));
    let (value, large) = ("v".repeat(100), "v".repeat(101));
    accepts(&format!("GET {key}"), &Command::Get { key: Key::bytes(key.as_bytes()) });
    accepts(&format!("APPEND k {value}"), &Command::Extend { key: K, bytes: value.as_bytes(), end: End::Back });
    for form in ["GET _", "SET _ v", "DEL k _", "EXISTS _", "MGET k _", "MSET k v _ v", "INCR _", "INCR _ 5"] {
        refuses(&form.replace('_', &long), TooBig, "a key of 65537 bytes; the limit is 65536");
        refuses(&form.replace('_', "''"), BadArgument, "a key has at least 1 byte");
    }
    for form in ["APPEND _ v", "PREPEND _ v", "TOUCH _ 5", "TTL _", "GETDEL _"] {
        refuses(&form.replace('_', &long), TooBig, "a key of 65537 bytes; the limit is 65536");
        refuses(&form.replace('_', "''"), BadArgument, "a key has at least 1 byte");
    }
    for form in ["SET k _", "MSET k v l _", "APPEND k _", "PREPEND k _"] {
        refuses(&form.replace('_', &large), TooBig, "a value of 101 bytes; the limit is 100");
    }
}

#[test]
fn an_unknown_verb_is_quoted_escaped_and_shortened() {
    refuses("FROB k", ErrorCode::BadCommand, "there is no command \"FROB\"");
    refuses("''", ErrorCode::BadCommand, "there is no command \"\"");
    refuses("GETX", ErrorCode::BadCommand, "\"GETX\"");
    refuses("VERSIONS", ErrorCode::BadCommand, "\"VERSIONS\"");
    let hostile = [b"\xff\0\n\"".repeat(100_000)];
    let error = frames::decode(&hostile.each_ref().map(Vec::as_slice), &LIMITS).unwrap_err();
    assert_eq!(error.message, format!("there is no command \"{}...\"", "\\xff\\x00\\n\\\"".repeat(8)));
}

#[test]
fn bodies_that_are_none() {
    let nothing: [&[u8]; 0] = [];
    assert_eq!(frames::decode(&nothing, &LIMITS).unwrap_err().code, ErrorCode::BadArgument);
    let mut body: Vec<&[u8]> = vec![b"k"; MAX_BODY_FRAMES];
    body[0] = b"DEL";
    assert!(frames::decode(&body, &LIMITS).is_ok());
    body.push(b"k");
    let error = frames::decode(&body, &LIMITS).unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::TooBig, "a message of 131073 frames; the limit is 131072"));
}

#[test]
fn every_reply() {
    let version = env!("CARGO_PKG_VERSION");
    let large = vec![7; 100_000];
    for (reply, expected) in [
        (Reply::Pong, vec![&b"OK"[..], b"PONG"]),
        (Reply::Done, vec![b"OK"]),
        (Reply::Stored(u64::MAX), vec![b"OK", b"18446744073709551615"]),
        (Reply::Number(-1), vec![b"OK", b"-1"]),
        (Reply::Miss, vec![b"MISS"]),
        (Reply::Exists, vec![b"EXISTS"]),
        (Reply::Conflict(9), vec![b"CONFLICT", b"9"]),
        (Reply::Value(StoredValue { bytes: b"", version: 3, flags: PICKLED }), vec![b"OK", b"", b"3", b"2147483648"]),
        (Reply::Value(StoredValue { bytes: &large, version: 3, flags: 0 }), vec![b"OK", &large, b"3", b"0"]),
        (
            Reply::Entries(vec![None, Some(StoredValue { bytes: b"v", version: 3, flags: PICKLED | 1 })]),
            vec![b"OK", b"0", b"", b"", b"", b"1", b"v", b"3", b"2147483649"],
        ),
        (Reply::Values(vec![Some(b"v"), None, Some(b"")]), vec![b"OK", b"1", b"v", b"0", b"", b"1", b""]),
        (Reply::Page { cursor: 5, keys: vec![b"a", b"b"] }, vec![b"OK", b"5", b"a", b"b"]),
        (Reply::Stats(vec![("keys", "7".into())]), vec![b"OK", b"keys", b"7"]),
        (Reply::Version, vec![b"OK", version.as_bytes(), b"2"]),
        (Reply::Error(ErrorCode::NotInteger, "why".into()), vec![b"ERR", b"NOTINT", b"why"]),
    ] {
        assert_eq!(encode(&reply), expected, "{reply:?}");
    }
}

/// Spells a SET out: what a client library would do.
fn spell(key: &[u8], value: &[u8], options: SetOptions) -> Vec<Vec<u8>> {
    let mut frames = vec![b"SET".to_vec(), key.to_vec(), value.to_vec()];
    let mut add = |words: &[String]| frames.extend(words.iter().map(|word| word.clone().into_bytes()));
    match options.expiry {
        Expiry::Never => {}
        Expiry::In(milliseconds) => add(&["TTL".into(), milliseconds.to_string()]),
        Expiry::At(at) => add(&["AT".into(), at.to_string()]),
    }
    match options.condition {
        Condition::Always => {}
        Condition::Absent => add(&["NX".into()]),
        Condition::Present => add(&["XX".into()]),
        Condition::Version(version) => add(&["IF".into(), version.to_string()]),
    }
    if options.flags & !PICKLED != 0 {
        add(&["FLAGS".into(), (options.flags & !PICKLED).to_string()]);
    }
    if options.flags & PICKLED != 0 {
        add(&["PICKLED".into()]);
    }
    frames
}

fn options() -> impl Strategy<Value = SetOptions> {
    let expiry = prop_oneof![
        Just(Expiry::Never),
        (1..=i64::MAX as u64).prop_map(Expiry::In),
        (0..=i64::MAX as u64).prop_map(Expiry::At)
    ];
    let condition = prop_oneof![
        Just(Condition::Always),
        Just(Condition::Absent),
        Just(Condition::Present),
        any::<u64>().prop_map(Condition::Version)
    ];
    (expiry, condition, any::<u32>()).prop_map(|(expiry, condition, flags)| SetOptions { expiry, condition, flags })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_set_comes_back_as_it_was_spelled(
        key in prop::collection::vec(any::<u8>(), 1..80),
        value in prop::collection::vec(any::<u8>(), 0..100),
        options in options(),
    ) {
        let frames = spell(&key, &value, options);
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let expected = Command::Set { key: Key::bytes(&key), value: (&value[..]).into(), options };
        prop_assert_eq!(frames::decode(&frames, &LIMITS), Ok(expected));
    }

    #[test]
    fn no_body_panics_and_errors_stay_short(
        verb in prop::sample::select(vec!["SET", "SCAN", "MSET", "INCR", "FLUSH", "TOUCH", "DEL", "frob"]),
        body in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..120),
            prop::sample::select(vec!["TTL", "AT", "NX", "XX", "IF", "FLAGS", "PICKLED", "PREFIX", "COUNT", "0", "7", "-1"])
                .prop_map(|word| word.as_bytes().to_vec()),
        ], 0..9),
    ) {
        let mut frames = vec![verb.as_bytes()];
        frames.extend(body.iter().map(Vec::as_slice));
        if let Err(error) = frames::decode(&frames, &LIMITS) {
            prop_assert!(error.message.len() <= 256 && error.message.is_ascii(), "{}", error);
            prop_assert!(encode(&error.reply()).len() == 3);
        }
    }
}
