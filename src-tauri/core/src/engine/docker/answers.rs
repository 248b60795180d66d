//! What engines answer, read field by field. The client's own types are closed: one word that they do not know, and the
//! whole answer is refused. Here a word is a word, what is missing or of another form is left out, and an entry of a list
//! that cannot be understood costs only itself. A list that cannot be read is a failure, never an empty list.

use std::fmt::Write as _;
use std::mem;

use bollard::Docker;
use bollard::errors::Error as ApiError;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::wording;
use crate::engine::{
    ContainerFacts, EngineCapacity, ImageFacts, ImageView, Labels, MountedVolume, NetworkFacts,
};
use crate::image::ImageReference;

/// Bytes that no answer comes near; what is longer is no answer.
const MOST_BYTES: usize = 64 << 20;
/// Bytes that no line of a stream of values comes near.
const LONGEST_LINE: usize = 1 << 20;
/// How the path ends of the one call of the client that hands its answer on as it comes.
const AS_IT_COMES: &str = "/containers/any/export";

/// How the paths of Podman's own API begin.
pub(super) const PODMANS_OWN: &str = "/v4.0.0/libpod";
/// The option of Docker's bridges that says whether containers on it reach each other.
pub(super) const REACH_EACH_OTHER: &str = "com.docker.network.bridge.enable_icc";
/// The option of Docker's bridges that says how many bytes a packet has at most.
pub(super) const LONGEST_PACKET: &str = "com.docker.network.driver.mtu";

/// Asks for a path of the API and returns the answer as it comes.
pub(super) fn pieces(client: Docker, path: String) -> BoxStream<'static, Result<Bytes, ApiError>> {
    let client = client.with_request_modifier(move |mut request| {
        let uri = request.uri().to_string();
        let base = uri.strip_suffix(AS_IT_COMES);
        // Podman's own API has versions of its own.
        let base = base.map(|base| match base.rsplit_once("/v") {
            Some((before, version)) if path.starts_with(PODMANS_OWN) && is_version(version) => {
                before
            }
            Some(_) | None => base,
        });
        let asked = base.and_then(|base| format!("{base}{path}").parse().ok());
        // A path that is none leads to a container that does not exist.
        if let Some(asked) = asked {
            *request.uri_mut() = asked;
        }
        request
    });
    Box::pin(client.export_container("any"))
}

fn is_version(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// Asks for a path of the API and returns the answer.
pub(super) async fn json(client: Docker, path: String) -> Result<Value, ApiError> {
    let mut pieces = pieces(client, path);
    let mut answer = Vec::new();
    while let Some(piece) = pieces.try_next().await? {
        if answer.len() + piece.len() > MOST_BYTES {
            let error = std::io::Error::other("the answer is too long");
            return Err(ApiError::IOError { err: error });
        }
        answer.extend_from_slice(&piece);
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// Asks for a path of the API that is answered by one JSON value a line, and returns them as they come. A line that
/// cannot be read is `null`: it says nothing but that there was one.
pub(super) fn lines(client: Docker, path: String) -> BoxStream<'static, Result<Value, ApiError>> {
    values(pieces(client, path))
}

fn values(
    pieces: BoxStream<'static, Result<Bytes, ApiError>>,
) -> BoxStream<'static, Result<Value, ApiError>> {
    let start = (pieces, Vec::new());
    stream::try_unfold(start, async |(mut pieces, mut held): (_, Vec<u8>)| {
        loop {
            if let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                let rest = held.split_off(end + 1);
                let line = mem::replace(&mut held, rest);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some((value(&line), (pieces, held))));
            }
            match BoxStream::try_next(&mut pieces).await? {
                Some(piece) if held.len() + piece.len() <= LONGEST_LINE => {
                    held.extend_from_slice(&piece);
                }
                Some(_) => {
                    let error = std::io::Error::other("a line is too long");
                    return Err(ApiError::IOError { err: error });
                }
                None if held.trim_ascii().is_empty() => return Ok(None),
                None => return Ok(Some((value(&mem::take(&mut held)), (pieces, held)))),
            }
        }
    })
    .boxed()
}

fn value(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap_or_default()
}

/// Writes filters, each a name and what is accepted, as the query of a path.
pub(super) fn filters(filters: &[(&str, &[&str])]) -> String {
    let filters: serde_json::Map<String, Value> = filters
        .iter()
        .map(|&(name, accepted)| (name.to_owned(), json!(accepted)))
        .collect();
    let text = Value::Object(filters).to_string();
    let mut query = "filters=".to_owned();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                query.push(char::from(byte));
            }
            _ => {
                // Writing into a text cannot fail.
                let _ = write!(query, "%{byte:02X}");
            }
        }
    }
    query
}

/// Reads a container, as an engine tells of one or lists many; `None` when it has no id.
pub(super) fn container(value: &Value) -> Option<ContainerFacts> {
    let word = text(value, "/State").or(text(value, "/State/Status"));
    let name = text(value, "/Name").or(text(value, "/Names/0"));
    let own_labels = labels(value.get("Labels"));
    let exit_code = value.pointer("/State/ExitCode").and_then(Value::as_i64);
    Some(ContainerFacts {
        id: id(value)?,
        // The API writes a slash before it.
        name: name.unwrap_or_default().trim_start_matches('/').to_owned(),
        labels: if own_labels.is_empty() {
            labels(value.pointer("/Config/Labels"))
        } else {
            own_labels
        },
        state: wording::container_state(word.unwrap_or_default()),
        exit_code: exit_code.unwrap_or_default(),
        volumes: each(value.get("Mounts"))
            .filter_map(mounted_volume)
            .collect(),
        networks: connections(value),
    })
}

/// Reads a list of containers; `None` when it is none.
pub(super) fn containers(value: &Value) -> Option<Vec<ContainerFacts>> {
    let read = |value: &Value| {
        let container = container(value);
        if container.is_none() {
            log::warn!("a container in the engine's list cannot be read");
        }
        container
    };
    Some(value.as_array()?.iter().filter_map(read).collect())
}

/// Reads a volume's name and labels; `None` when it has no name.
pub(super) fn volume(value: &Value) -> Option<(String, Labels)> {
    Some((
        text(value, "/Name")?.to_owned(),
        labels(value.get("Labels")),
    ))
}

/// Reads a list of volumes; `None` when it is none.
pub(super) fn volumes(value: &Value) -> Option<Vec<(String, Labels)>> {
    let list = value.as_object()?.get("Volumes")?;
    match list {
        Value::Null => Some(Vec::new()),
        list => Some(list.as_array()?.iter().filter_map(volume).collect()),
    }
}

/// Reads a list of networks, as Docker writes it; `None` when it is none.
pub(super) fn networks(value: &Value) -> Option<Vec<NetworkFacts>> {
    let read = |value: &Value| {
        let option = value.get("Options")?.get(REACH_EACH_OTHER);
        Some(NetworkFacts {
            name: text(value, "/Name")?.to_owned(),
            labels: labels(value.get("Labels")),
            separates: text(value, "/Driver") == Some("bridge")
                && value.get("Internal").and_then(Value::as_bool) != Some(true)
                && option.and_then(Value::as_str) == Some("false"),
        })
    };
    Some(value.as_array()?.iter().filter_map(read).collect())
}

/// Reads a list of networks, as Podman's own API writes it; `None` when it is none.
pub(super) fn podman_networks(value: &Value) -> Option<Vec<NetworkFacts>> {
    let read = |value: &Value| {
        let isolated = text(value, "/options/isolate");
        Some(NetworkFacts {
            name: text(value, "/name")?.to_owned(),
            labels: labels(value.get("labels")),
            separates: matches!(isolated, Some("true" | "strict")),
        })
    };
    match value {
        Value::Null => Some(Vec::new()),
        list => Some(list.as_array()?.iter().filter_map(read).collect()),
    }
}

/// Reads the names of the networks that a container is on.
pub(super) fn connections(container: &Value) -> Vec<String> {
    let networks = container.pointer("/NetworkSettings/Networks");
    let networks = networks.and_then(Value::as_object).into_iter().flatten();
    networks.map(|(name, _)| name.clone()).collect()
}

/// Reads whether the networks that a container is on can be changed at all.
pub(super) fn can_change_network(container: &Value) -> bool {
    let mode = text(container, "/HostConfig/NetworkMode").unwrap_or_default();
    let is_own_kind = ["none", "host", "slirp4netns", "pasta", "container:", "ns:"];
    !is_own_kind.iter().any(|kind| mode.starts_with(kind))
}

/// Reads how many bytes a packet has at most on Docker's default network, if it says something unusual.
pub(super) fn longest_packet(default_network: &Value) -> Option<&str> {
    let bytes = default_network.get("Options")?.get(LONGEST_PACKET)?;
    let bytes = bytes.as_str()?;
    let is_unusual = bytes != "1500" && bytes.parse().is_ok_and(|bytes: u32| bytes > 0);
    is_unusual.then_some(bytes)
}

/// Reads an image; `None` when it has no id.
pub(super) fn image(value: &Value) -> Option<ImageFacts> {
    let volumes = value.pointer("/Config/Volumes").and_then(Value::as_object);
    let mut volumes: Vec<_> = volumes
        .into_iter()
        .flatten()
        .map(|(path, _)| path.clone())
        .collect();
    volumes.sort();
    Some(ImageFacts {
        id: id(value)?,
        architecture: wording::kernel_architecture(
            text(value, "/Architecture").unwrap_or_default(),
        ),
        user: text(value, "/Config/User").unwrap_or_default().to_owned(),
        sets_home: texts(value.pointer("/Config/Env"))
            .iter()
            .any(|variable| variable.starts_with("HOME=")),
        volumes,
        layers: texts(value.pointer("/RootFS/Layers")),
    })
}

/// Returns the names that an image has.
pub(super) fn image_names(value: &Value) -> Vec<String> {
    texts(value.get("RepoTags"))
}

/// Reads a list of images, one for each name; `None` when it is none.
pub(super) fn images(value: &Value) -> Option<Vec<ImageView>> {
    let views = value.as_array()?.iter().flat_map(|image| {
        let size_bytes = image
            .get("Size")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        image_names(image).into_iter().filter_map(move |name| {
            let reference: ImageReference = name.parse().ok()?;
            let offered = !reference.is_built_in();
            offered.then(|| ImageView {
                image_name: reference.familiar(),
                size_bytes,
            })
        })
    });
    Some(views.collect())
}

/// Reads what an engine has to give.
pub(super) fn capacity(value: &Value) -> EngineCapacity {
    let known = |name: &str| {
        let count = value.get(name).and_then(Value::as_u64);
        count.filter(|&count| count > 0)
    };
    let can = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(true);
    EngineCapacity {
        processors: known("NCPU"),
        memory_bytes: known("MemTotal"),
        limits_memory: can("MemoryLimit"),
        limits_swap: can("SwapLimit"),
    }
}

fn id(value: &Value) -> Option<String> {
    text(value, "/Id").map(str::to_owned)
}

fn mounted_volume(value: &Value) -> Option<MountedVolume> {
    let is_volume = text(value, "/Type") == Some("volume");
    is_volume.then_some(MountedVolume {
        name: text(value, "/Name")?.to_owned(),
        path: text(value, "/Destination")?.to_owned(),
    })
}

/// Returns the text at a place that is not empty.
fn text<'a>(value: &'a Value, place: &str) -> Option<&'a str> {
    let text = value.pointer(place).and_then(Value::as_str);
    text.filter(|text| !text.is_empty())
}

fn labels(value: Option<&Value>) -> Labels {
    let labels = value.and_then(Value::as_object).into_iter().flatten();
    let labels = labels.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())));
    labels.collect()
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let texts = each(value).filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn each(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ContainerState;

    #[test]
    fn a_word_that_nobody_knows_costs_only_itself() {
        let listed = |id: &str, state: Value| json!({ "Id": id, "Names": [format!("/{id}")], "State": state, "Labels": { "a": "b" } });
        let list = json!([
            listed("one", json!("stopped")),
            listed("two", json!("running")),
            listed("three", json!("hibernating")),
            listed("four", json!({ "Status": 7 })),
            "nonsense",
            { "Id": "five", "Names": null, "State": null, "Labels": ["?"], "Mounts": { "a": 1 } },
            listed("six", json!("paused")),
        ]);
        let read: Vec<_> = containers(&list)
            .unwrap()
            .into_iter()
            .map(|container| (container.id, container.name, container.state))
            .collect();
        let expected = [
            ("one", "one", ContainerState::Exited),
            ("two", "two", ContainerState::Running),
            ("three", "three", ContainerState::Exited),
            ("four", "four", ContainerState::Exited),
            ("five", "", ContainerState::Exited),
            ("six", "six", ContainerState::Paused),
        ];
        let expected = expected.map(|(id, name, state)| (id.to_owned(), name.to_owned(), state));
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_no_list_is_not_an_empty_one() {
        for value in [
            json!({}),
            json!(null),
            json!("text"),
            json!({ "message": "busy" }),
        ] {
            assert_eq!(containers(&value), None, "{value}");
            assert_eq!(volumes(&value), None, "{value}");
            assert_eq!(images(&value), None, "{value}");
        }
        assert_eq!(containers(&json!([])), Some(Vec::new()));
        assert_eq!(volumes(&json!({ "Volumes": null })), Some(Vec::new()));
    }

    #[test]
    fn an_inspected_container_is_read_like_a_listed_one() {
        let mount =
            json!({ "Type": "volume", "Name": "v", "Destination": "/workspace", "RW": true });
        let others = [
            json!({ "Type": "bind", "Source": "/a", "Destination": "/b" }),
            json!(3),
        ];
        let mounts = json!([mount, others[0], others[1]]);
        let inspected = json!({
            "Id": "1", "Name": "/n", "Config": { "Labels": { "a": "b", "c": 4 } },
            "State": { "Status": "exited", "ExitCode": 3 }, "Mounts": mounts,
            "NetworkSettings": { "Networks": { "n": { "NetworkID": "" } } },
        });
        let listed = json!({
            "Id": "1", "Names": ["/n"], "Labels": { "a": "b" }, "State": "exited", "Mounts": mounts,
            "NetworkSettings": { "Networks": { "n": {} } },
        });
        let (inspected, listed) = (container(&inspected).unwrap(), container(&listed).unwrap());
        assert_eq!(inspected.exit_code, 3);
        assert_eq!(
            ContainerFacts {
                exit_code: 0,
                ..inspected
            },
            listed
        );
        let volume = MountedVolume {
            name: "v".to_owned(),
            path: "/workspace".to_owned(),
        };
        assert_eq!(listed.volumes, [volume]);
        assert_eq!(listed.networks, ["n"]);
    }

    #[test]
    fn a_network_separates_only_when_the_engine_says_so() {
        let listed = |driver: &str, options: Value, internal: bool| json!({ "Name": "n", "Driver": driver, "Options": options, "Internal": internal, "Labels": { "a": "b" } });
        let right = json!({ REACH_EACH_OTHER: "false" });
        let list = json!([
            listed("bridge", right.clone(), false),
            listed("bridge", json!({ REACH_EACH_OTHER: "true" }), false),
            listed("bridge", json!({ REACH_EACH_OTHER: false }), false),
            listed("bridge", json!({}), false),
            listed("macvlan", right.clone(), false),
            // It has no way out.
            listed("bridge", right, true),
            { "Name": "n", "Driver": "bridge", "Options": null },
            { "Driver": "bridge" },
        ]);
        let separate = |networks: Vec<NetworkFacts>| -> Vec<_> {
            networks.iter().map(|network| network.separates).collect()
        };
        let read = networks(&list).unwrap();
        assert_eq!(
            read[0].labels,
            Labels::from([("a".to_owned(), "b".to_owned())])
        );
        assert_eq!(
            separate(read),
            [true, false, false, false, false, false, false]
        );
        assert_eq!(networks(&json!({ "message": "busy" })), None);

        let listed = |options: Value| json!({ "name": "n", "options": options, "labels": null });
        let list = json!([
            listed(json!({ "isolate": "true" })),
            listed(json!({ "isolate": "strict" })),
            listed(json!({ "isolate": "false" })),
            listed(json!({})),
            { "name": "n" },
        ]);
        let read = podman_networks(&list).unwrap();
        assert_eq!(separate(read), [true, true, false, false, false]);
        assert_eq!(podman_networks(&json!(null)), Some(Vec::new()));
        assert_eq!(podman_networks(&json!({ "cause": "?" })), None);
    }

    #[test]
    fn only_an_unusual_length_of_packets_is_taken_over() {
        for (options, expected) in [
            (json!({ LONGEST_PACKET: "1500" }), None),
            (json!({ LONGEST_PACKET: "1280" }), Some("1280")),
            (json!({ LONGEST_PACKET: "0" }), None),
            (json!({ LONGEST_PACKET: "wide" }), None),
            (json!({}), None),
            (json!(null), None),
        ] {
            let network = json!({ "Options": options });
            assert_eq!(longest_packet(&network), expected, "{network}");
        }
    }

    #[tokio::test]
    async fn values_come_a_line_each_however_they_are_cut_and_one_that_is_none_costs_only_itself() {
        let sent = b"{\"a\":1}\n\n{\"b\":\nnonsense\r\n[2]\n{\"c\":3}";
        for at_once in 1..=sent.len() {
            let pieces: Vec<_> = sent
                .chunks(at_once)
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect();
            let told: Vec<Value> = values(stream::iter(pieces).boxed())
                .try_collect()
                .await
                .unwrap();
            let expected = [
                json!({ "a": 1 }),
                json!(null),
                json!(null),
                json!([2]),
                json!({ "c": 3 }),
            ];
            assert_eq!(told, expected);
        }
        let endless = std::iter::repeat_with(|| Ok(Bytes::from(vec![b'x'; 65_536]))).take(1_000);
        let told = values(stream::iter(endless).boxed()).try_collect::<Vec<_>>();
        assert!(told.await.is_err(), "a line without end is not held");
    }

    #[test]
    fn filters_are_written_for_a_path() {
        assert_eq!(
            filters(&[("label", &["dev.cove.session=a b"])]),
            "filters=%7B%22label%22%3A%5B%22dev.cove.session%3Da%20b%22%5D%7D"
        );
    }
}
