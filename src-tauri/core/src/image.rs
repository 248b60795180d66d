//! References to images: parsed by the distribution grammar and normalised, so that two spellings
//! of one image are one value. Whether the image exists is the engine's to say.

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::{ParseError, Reference};

/// The registry in the built-in image's name. None can serve it: `.invalid` never resolves
/// (RFC 2606).
const BUILT_IN_REGISTRY: &str = "cove.invalid";

/// A normalised reference: `python` is `docker.io/library/python:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference(Reference);

/// A text that is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// The repository has capital letters.
    #[error("must have its repository in lower case, like `python:3.13`")]
    UpperCase,
    /// The repository is too long.
    #[error("must have a repository of at most 255 characters")]
    TooLong,
    /// The digest is malformed.
    #[error("has a malformed digest; it looks like `name@sha256:` and 64 hexadecimal digits")]
    Digest,
    /// A bare image id was given.
    #[error("must be a name, like `python:3.13`, and not an image id")]
    BareId,
    /// The rest.
    #[error(
        "must be an image reference, like `python:3.13` or `registry.example.com/team/app:1.0`"
    )]
    Grammar,
}

/// Gets the grammar of references ready, which takes some tens of milliseconds once in a process:
/// time that the first **Create** should not take.
pub fn prepare() {
    // Only the work counts.
    let _ = "prepare".parse::<ImageReference>();
}

impl ImageReference {
    /// Returns the reference of the image that is built into the app.
    #[must_use]
    pub fn built_in() -> Self {
        Self(Reference::with_tag(
            BUILT_IN_REGISTRY.to_owned(),
            "base".to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
        ))
    }

    /// Returns whether this is the image that is built into the app.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        self.registry() == BUILT_IN_REGISTRY
    }

    /// Returns the host, and port if any, of the registry that serves the image.
    #[must_use]
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// Returns the reference as the distribution's own type.
    #[must_use]
    pub fn as_reference(&self) -> &Reference {
        &self.0
    }

    /// Returns the name without tag and digest, as the engine's pull wants it.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.0.registry(), self.0.repository())
    }

    /// Returns the digest, else the tag: what the engine's pull calls `tag`.
    #[must_use]
    pub fn tag_or_digest(&self) -> &str {
        self.0.digest().or(self.0.tag()).unwrap_or("latest")
    }

    /// Returns the short form that users know: `docker.io/library/python:3.13` is `python:3.13`.
    #[must_use]
    pub fn familiar(&self) -> String {
        if self.is_built_in() {
            return "Built-in".to_owned();
        }
        let whole = self.0.to_string();
        let short = whole.strip_prefix("docker.io/").unwrap_or(&whole);
        let short = short
            .strip_prefix("library/")
            .filter(|name| !name.contains('/'))
            .unwrap_or(short);
        // `docker.io/localhost/app` without its registry would be one of the registry `localhost`.
        let names_a_registry = short
            .split_once('/')
            .is_some_and(|(first, _)| first == "localhost" || first.contains(['.', ':']));
        if names_a_registry {
            whole
        } else {
            short.to_owned()
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ImageReference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let text = text.trim();
        // The library's `\w` takes letters of any script; the grammar knows ASCII only.
        if !text.is_ascii() {
            return Err(InvalidReference::Grammar);
        }
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidReference::BareId);
        }
        let reference = parse(text).map_err(|error| match error {
            ParseError::NameContainsUppercase => InvalidReference::UpperCase,
            ParseError::NameTooLong => InvalidReference::TooLong,
            ParseError::DigestInvalidFormat
            | ParseError::DigestInvalidLength
            | ParseError::DigestUnsupported => InvalidReference::Digest,
            ParseError::NameEmpty
            | ParseError::ReferenceInvalidFormat
            | ParseError::TagInvalidFormat => {
                let name_end = text.find(['@', ':']).unwrap_or(text.len());
                let has_upper = text.chars().take(name_end).any(char::is_uppercase);
                if has_upper {
                    InvalidReference::UpperCase
                } else {
                    InvalidReference::Grammar
                }
            }
        })?;
        // The library lets a first component with capitals pass as part of a Docker Hub name.
        if reference
            .repository()
            .bytes()
            .any(|byte| byte.is_ascii_uppercase())
        {
            return Err(InvalidReference::UpperCase);
        }
        // The library reads the digits of a digest in either case, and takes for a registry what no
        // host can be called.
        let digest = reference.digest().unwrap_or_default();
        if digest.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidReference::Digest);
        }
        if reference.registry().contains('_') {
            return Err(InvalidReference::Grammar);
        }
        // Each version of the app has its own built-in image, and none can be had from elsewhere.
        if reference.registry() == BUILT_IN_REGISTRY {
            return Ok(Self::built_in());
        }
        Ok(Self(reference))
    }
}

/// Parses by the library's grammar, and by what that lacks: registries that are IPv6 addresses. Such
/// a reference is parsed with a host name in the address's place.
fn parse(text: &str) -> Result<Reference, ParseError> {
    const STAND_IN: &str = "ipv6.invalid";
    let Some((address, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) else {
        return text.parse();
    };
    let is_address = !address.is_empty()
        && address
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b':');
    if !is_address || !rest.starts_with([':', '/']) {
        return Err(ParseError::ReferenceInvalidFormat);
    }
    let reference: Reference = format!("{STAND_IN}{rest}").parse()?;
    let port = reference
        .registry()
        .strip_prefix(STAND_IN)
        .ok_or(ParseError::ReferenceInvalidFormat)?;
    let registry = format!("[{address}]{port}");
    if !registry.contains(':') {
        return Err(ParseError::ReferenceInvalidFormat);
    }
    let repository = reference.repository().to_owned();
    let tag = reference.tag().map(str::to_owned);
    let digest = reference.digest().map(str::to_owned);
    Ok(match (tag, digest) {
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(registry, repository, tag, digest)
        }
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest),
        (Some(tag), None) => Reference::with_tag(registry, repository, tag),
        (None, None) => Reference::with_tag(registry, repository, "latest".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, InvalidReference>) {
        let got = text
            .parse::<ImageReference>()
            .map(|reference| reference.to_string());
        assert_eq!(got, expected.map(str::to_owned), "for `{text}`");
    }

    #[test]
    fn two_spellings_of_one_image_are_one_reference() {
        check("python", Ok("docker.io/library/python:latest"));
        check(" python:3.13 ", Ok("docker.io/library/python:3.13"));
        check("docker.io/python", Ok("docker.io/library/python:latest"));
        check(
            "index.docker.io/library/python",
            Ok("docker.io/library/python:latest"),
        );
        check("team/app", Ok("docker.io/team/app:latest"));
        check("localhost/app:1", Ok("localhost/app:1"));
        check("127.0.0.1:5000/a/b/c:x", Ok("127.0.0.1:5000/a/b/c:x"));
        check("[::1]:5000/app", Ok("[::1]:5000/app:latest"));
        let digest = "a".repeat(64);
        check(
            &format!("alpine@sha256:{digest}"),
            Ok(&format!("docker.io/library/alpine@sha256:{digest}")),
        );
        check(
            &format!("alpine:3@sha256:{digest}"),
            Ok(&format!("docker.io/library/alpine:3@sha256:{digest}")),
        );
    }

    #[test]
    fn what_the_grammar_forbids_is_refused() {
        for text in [
            "",
            " ",
            ":tag",
            "@sha256:aa",
            "a b",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a..b",
            "a:",
            "a:-t",
            "a@b",
            "https://a/b",
            "a;rm -rf",
            "$(id)",
            "pythön",
            "python:日本",
            "a\nb",
            "a\0b",
            "_a",
            "a_b.example/app",
            "[::1]",
            "[::1]:5000",
            "[::g]/app",
            "[]/app",
        ] {
            check(text, Err(InvalidReference::Grammar));
        }
        check("Python", Err(InvalidReference::UpperCase));
        check("Team/app", Err(InvalidReference::UpperCase));
        check(
            &format!("a:{}", "t".repeat(129)),
            Err(InvalidReference::Grammar),
        );
        check(
            &format!("alpine@sha256:{}", "A".repeat(64)),
            Err(InvalidReference::Digest),
        );
        check(&"a".repeat(300), Err(InvalidReference::TooLong));
        check(&"a".repeat(64), Err(InvalidReference::BareId));
        check(
            "alpine@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            Err(InvalidReference::Digest),
        );
    }

    #[test]
    fn the_familiar_form_is_short_and_means_the_same() {
        for (text, familiar) in [
            ("docker.io/library/python:3.13", "python:3.13"),
            ("docker.io/team/app:1", "team/app:1"),
            ("127.0.0.1:5000/app:1", "127.0.0.1:5000/app:1"),
            ("docker.io/localhost/app:1", "docker.io/localhost/app:1"),
            ("docker.io/a.b/app:1", "docker.io/a.b/app:1"),
        ] {
            let reference: ImageReference = text.parse().unwrap();
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(familiar.parse::<ImageReference>().unwrap(), reference);
        }
        assert_eq!(ImageReference::built_in().familiar(), "Built-in");
    }

    #[test]
    fn the_built_in_image_of_any_version_is_that_of_this_one() {
        let old: ImageReference = "cove.invalid/base:0.0.1".parse().unwrap();
        assert_eq!(old, ImageReference::built_in());
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(old.to_string(), format!("cove.invalid/base:{version}"));
    }
}
