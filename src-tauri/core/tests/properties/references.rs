//! Image references against the grammar of the distribution project, which is stated here twice and
//! both times by hand: as strategies that write valid references, and as a recogniser that reads any
//! text.
//!
//! ```text
//! reference := name [ ":" tag ] [ "@" digest ]
//! name      := [ domain "/" ] component { "/" component }
//! domain    := host [ ":" digits ]
//! host      := label { "." label } | "[" hex-digits-and-colons "]"
//! label     := alnum [ { alnum | "-" } alnum ]
//! component := low-alnum { separator low-alnum }
//! separator := "." | "_" | "__" | "-" { "-" }
//! tag       := word-char { word-char | "." | "-" }, up to 128 characters
//! digest    := ("sha256" | "sha384" | "sha512") ":" low-hex, of the algorithm's length
//! ```
//!
//! A first component is a domain if it has a dot or a colon, or is `localhost`; without a domain it is
//! `docker.io`, and without a namespace there `library`.
//!
//! Where Cove means to differ: blanks around a reference are ignored; a bare image id is refused in
//! either case; a first component with capitals and neither dot nor colon is a misspelt name, not a
//! domain; and whatever is at `cove.invalid` is this version's built-in image.

use cove_core::image::{ImageReference, InvalidReference};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::cases;

/// A valid reference in its parts.
#[derive(Debug, Clone)]
struct Parts {
    domain: Option<String>,
    components: Vec<String>,
    tag: Option<String>,
    digest: Option<String>,
}

impl Parts {
    fn written(&self) -> String {
        let path = self.components.join("/");
        let name = match &self.domain {
            Some(domain) => format!("{domain}/{path}"),
            None => path,
        };
        name + &ending(self.tag.as_deref(), self.digest.as_deref())
    }
}

fn ending(tag: Option<&str>, digest: Option<&str>) -> String {
    let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
    tag + &digest
        .map(|digest| format!("@{digest}"))
        .unwrap_or_default()
}

fn label() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9]([a-zA-Z0-9-]{0,6}[a-zA-Z0-9])?"
}

fn domain() -> impl Strategy<Value = String> {
    let dotted = prop::collection::vec(label(), 2..5).prop_map(|labels| labels.join("."));
    let port = "(:[0-9]{1,5})?";
    prop_oneof![
        (dotted, port).prop_map(|(host, port)| host + &port),
        (label(), ":[0-9]{1,5}").prop_map(|(host, port)| host + &port),
        (any::<[u8; 4]>(), port).prop_map(|([a, b, c, d], port)| format!("{a}.{b}.{c}.{d}{port}")),
        ("[0-9a-fA-F]{0,4}:[0-9a-fA-F:]{0,35}", port)
            .prop_map(|(address, port)| format!("[{address}]{port}")),
        port.prop_map(|port| format!("localhost{port}")),
        select(vec![
            "docker.io",
            "index.docker.io",
            "ghcr.io",
            "cove.invalid"
        ])
        .prop_map(str::to_owned),
    ]
}

fn component() -> impl Strategy<Value = String> {
    let more = prop::collection::vec(("([._]|__|-{1,3})", "[a-z0-9]{1,4}"), 0..3);
    ("[a-z0-9]{1,6}", more).prop_map(|(first, more)| {
        let more = more.into_iter().map(|(separator, part)| separator + &part);
        first + &more.collect::<String>()
    })
}

fn digest() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "sha256:[0-9a-f]{64}",
        1 => "sha384:[0-9a-f]{96}",
        1 => "sha512:[0-9a-f]{128}",
    ]
}

fn parts() -> impl Strategy<Value = Parts> {
    (
        prop::option::of(domain()),
        prop::collection::vec(component(), 1..5),
        prop::option::of("[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}"),
        prop::option::weighted(0.3, digest()),
    )
        .prop_map(|(domain, components, tag, digest)| Parts {
            domain,
            components,
            tag,
            digest,
        })
        .prop_filter(
            "a bare id, or a first component that is a domain",
            |parts| {
                let first = parts.components.first().unwrap();
                parts.domain.is_some()
                    || parts.components.len() == 1
                    || !(first.contains('.') || first == "localhost")
            },
        )
}

/// What goes wrong when somebody types or pastes.
fn near_miss() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "",
        ".",
        "..",
        "_",
        "__",
        "___",
        "-",
        "--",
        ":",
        "::",
        "@",
        "/",
        "//",
        "[",
        "]",
        "A",
        "Z",
        "a",
        "0",
        " ",
        "\t",
        "\n",
        "\0",
        "é",
        "日",
        "\u{202e}",
        "\u{200b}",
        "ſ",
        "K",
        "sha256:",
        "@sha256:",
        ":latest",
        "localhost/",
        "docker.io/",
        "https://",
        "[::1]/",
        "[::1]:1/",
        "%",
        "\\",
    ]);
    let edit = (any::<Index>(), 0_usize..3, piece);
    let start = prop_oneof![
        4 => parts().prop_map(|parts| parts.written()),
        1 => "[a-zA-Z0-9._:/@\\[\\]-]{0,30}",
        // Around the limits of lengths.
        1 => "[a-z]{240,260}(/[a-z]{1,4})?",
        1 => "a(:[a-z]{126,130})",
        1 => "([0-9a-f]{63,65}|[0-9A-F]{64})",
        1 => "a@[a-z0-9+._-]{1,8}:[0-9a-fA-F]{30,34}",
    ];
    (start, prop::collection::vec(edit, 0..3)).prop_map(|(start, edits)| {
        edits.into_iter().fold(start, |text, (at, removed, piece)| {
            let mut chars: Vec<char> = text.chars().collect();
            let begin = at.index(chars.len() + 1);
            let end = chars.len().min(begin + removed);
            chars.splice(begin..end, piece.chars());
            chars.into_iter().collect()
        })
    })
}

/// Reads a text by the grammar; returns the normalised reference, or `None` when it is none.
fn recognise(text: &str) -> Option<String> {
    let text = text.trim();
    let is_id = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id {
        return None;
    }
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (
            text,
            Some(digest).filter(|digest| is_digest(digest))?.into(),
        ),
        None => (text, None::<&str>),
    };
    let (first, rest) = text.split_once('/').unwrap_or(("", text));
    let is_domain = first.contains(['.', ':']) || first == "localhost";
    let (domain, rest) = if is_domain {
        (first, rest)
    } else {
        ("docker.io", text)
    };
    if !is_valid_domain(domain) {
        return None;
    }
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag).filter(|tag| is_tag(tag))?.into()),
        None => (rest, None::<&str>),
    };
    if !path.split('/').all(is_component) {
        return None;
    }
    if domain == "cove.invalid" {
        let built_in = ImageReference::built_in().to_string();
        return (path.len() <= 255).then_some(built_in);
    }
    let domain = if domain == "index.docker.io" {
        "docker.io"
    } else {
        domain
    };
    let namespace = if domain == "docker.io" && !path.contains('/') {
        "library/"
    } else {
        ""
    };
    let path = format!("{namespace}{path}");
    let tag = tag.or(digest.is_none().then_some("latest"));
    (path.len() <= 255).then(|| format!("{domain}/{path}{}", ending(tag, digest)))
}

fn is_valid_domain(text: &str) -> bool {
    let (host, port) = match text.rfind(':').filter(|_| !text.ends_with(']')) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_address = |host: &str| {
        let inside = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        inside.is_some_and(|inside| {
            let mut bytes = inside.bytes();
            !inside.is_empty() && bytes.all(|byte| byte.is_ascii_hexdigit() || byte == b':')
        })
    };
    let is_label = |label: &str| {
        let mut bytes = label.bytes();
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    port.is_none_or(is_port) && (is_address(host) || host.split('.').all(is_label))
}

fn is_component(text: &str) -> bool {
    let is_low = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators: Vec<&str> = text.split(is_low).filter(|part| !part.is_empty()).collect();
    let is_separator =
        |part: &&str| matches!(*part, "." | "_" | "__") || part.chars().all(|c| c == '-');
    text.starts_with(is_low) && text.ends_with(is_low) && separators.iter().all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128
        && text.starts_with(is_word)
        && text.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

fn is_digest(text: &str) -> bool {
    let lengths = [("sha256:", 64), ("sha384:", 96), ("sha512:", 128)];
    lengths.iter().any(|(algorithm, length)| {
        text.strip_prefix(algorithm).is_some_and(|hex| {
            hex.len() == *length
                && hex
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    })
}

/// What must hold of a reference that was accepted: its long and its short form mean the same.
#[track_caller]
fn check_forms(reference: &ImageReference) {
    let long = reference.to_string();
    assert_eq!(long.parse().as_ref(), Ok(reference), "{long}");
    assert!(long.starts_with(&reference.repository()), "{long}");
    assert!(long.ends_with(reference.tag_or_digest()), "{long}");
    let short = reference.familiar();
    if reference.is_built_in() {
        assert_eq!(short, "Built-in");
    } else {
        assert_eq!(short.parse().as_ref(), Ok(reference), "{short} for {long}");
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn what_the_grammar_writes_is_accepted_and_normalised(parts in parts()) {
        let text = parts.written();
        let reference: ImageReference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        prop_assert_eq!(Some(reference.to_string()), recognise(&text));
        if let Some(domain) = parts.domain.filter(|domain| !domain.ends_with("docker.io")) {
            prop_assert_eq!(reference.registry(), domain);
        }
        check_forms(&reference);
    }

    #[test]
    fn a_text_is_accepted_exactly_when_the_grammar_has_it(text in near_miss()) {
        let parsed = text.parse::<ImageReference>();
        prop_assert_eq!(parsed.as_ref().ok().map(ToString::to_string), recognise(&text));
        match parsed {
            Ok(reference) => check_forms(&reference),
            Err(error) => check_reason(&text, &error),
        }
    }

    #[test]
    fn no_text_at_all_makes_it_stumble(text in any::<String>()) {
        let parsed = text.parse::<ImageReference>();
        prop_assert_eq!(parsed.ok().map(|reference| reference.to_string()), recognise(&text));
    }
}

/// The reason that is given is one that the text really has.
#[track_caller]
fn check_reason(text: &str, reason: &InvalidReference) {
    let holds = match reason {
        InvalidReference::UpperCase => text.bytes().any(|byte| byte.is_ascii_uppercase()),
        InvalidReference::TooLong => text.len() > 247,
        InvalidReference::Digest => text.contains('@'),
        InvalidReference::BareId => text.trim().len() == 64,
        InvalidReference::Grammar => true,
    };
    assert!(holds, "`{text}` {reason}");
}
