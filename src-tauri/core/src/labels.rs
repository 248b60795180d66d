//! The labels on every container and volume of a session. They are the truth about sessions: what
//! is not written here is forgotten when the app ends.

use std::collections::HashMap;

use crate::session::{
    CreateSession, DESCRIPTION_MAX, Network, PROJECT_NAME_MAX, SessionId, WORKSPACE_ID_MAX,
};
use crate::template::TemplateId;

/// The session's id. Whatever does not bear this label is never touched. Containers inherit the labels of
/// their images, so that one which bears it is ours only with the session's volume.
pub const SESSION: &str = "dev.cove.session";
const WORKSPACE: &str = "dev.cove.workspace";
const PROJECT: &str = "dev.cove.project";
const DESCRIPTION: &str = "dev.cove.description";
const TEMPLATE: &str = "dev.cove.template";
const IMAGE: &str = "dev.cove.image";
const VERSION: &str = "dev.cove.version";
const CREATED: &str = "dev.cove.created";
/// Whether programs may become root by `sudo` and the like.
const PRIVILEGE_GAIN: &str = "dev.cove.privilege-gain";
/// On containers and volumes: what the session reaches. On networks, which bear no other label that every one of
/// them has: for whom they are.
pub const NETWORK: &str = "dev.cove.network";
/// The word on a network that all sessions share.
const SHARED: &str = "shared";
/// The word on a network of one session.
const OF_SESSION: &str = "session";
/// On volumes only: where one is mounted that holds a folder below `/workspace`.
const PATH: &str = "dev.cove.path";
/// On containers only: the user that the image runs as, as the image spells it.
const USER: &str = "dev.cove.user";

/// What a label says of what is allowed.
const ALLOWED: &str = "allowed";

/// The most characters of the other texts: the longest reference of an image has less.
const LONGEST: usize = 1_000;

/// Labels of a container or volume.
pub type Labels = HashMap<String, String>;

/// Writes a session's labels. `created` is RFC 3339, UTC.
#[must_use]
pub fn of(id: SessionId, request: &CreateSession, created: &str) -> Labels {
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    // An empty one says no: a container inherits the labels of its image that it does not bear itself.
    let gain = if request.allow_privilege_gain {
        ALLOWED
    } else {
        ""
    };
    Labels::from(
        [
            (SESSION, id.to_string()),
            (WORKSPACE, request.workspace_id.clone()),
            (PROJECT, optional(&request.project_name)),
            (DESCRIPTION, optional(&request.description)),
            (
                TEMPLATE,
                request
                    .template
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            ),
            (IMAGE, request.image.to_string()),
            (VERSION, env!("CARGO_PKG_VERSION").to_owned()),
            (CREATED, created.to_owned()),
            (PRIVILEGE_GAIN, gain.to_owned()),
            (NETWORK, request.network.as_str().to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}

/// Reads a session back: its id, what was asked for, and when it was created. Returns `None` for
/// labels that no version of Cove has written. A text that is longer than any that Cove writes is cut:
/// whoever runs a container can label it.
#[must_use]
pub fn read(labels: &Labels) -> Option<(SessionId, CreateSession, String)> {
    let text = |name: &str, longest: usize| -> Option<String> {
        let value = labels.get(name).filter(|value| !value.is_empty())?;
        Some(value.chars().take(longest).collect())
    };
    let template = text(TEMPLATE, LONGEST);
    let request = CreateSession {
        workspace_id: text(WORKSPACE, WORKSPACE_ID_MAX)?,
        project_name: text(PROJECT, PROJECT_NAME_MAX),
        description: text(DESCRIPTION, DESCRIPTION_MAX),
        template: template.as_deref().map(TemplateId::from_label),
        image: text(IMAGE, LONGEST)?.parse().ok()?,
        allow_privilege_gain: labels
            .get(PRIVILEGE_GAIN)
            .is_some_and(|word| word == ALLOWED),
        network: network(labels),
    };
    Some((
        session(labels)?,
        request,
        text(CREATED, LONGEST).unwrap_or_default(),
    ))
}

/// Writes the labels of a session's container: those of the session, and the image's user, so that
/// the container can be opened when the image has gone from the engine.
#[must_use]
pub fn of_container(id: SessionId, request: &CreateSession, created: &str, user: &str) -> Labels {
    let mut labels = of(id, request, created);
    labels.insert(USER.to_owned(), user.to_owned());
    labels
}

/// Writes the labels of a volume that holds a folder below `/workspace`: those of the session, and the folder.
#[must_use]
pub fn of_inner_volume(
    id: SessionId,
    request: &CreateSession,
    created: &str,
    path: &str,
) -> Labels {
    let mut labels = of(id, request, created);
    labels.insert(PATH.to_owned(), path.to_owned());
    labels
}

/// Returns the folder below `/workspace` that a volume holds.
#[must_use]
pub fn inner_path(labels: &Labels) -> Option<&str> {
    labels.get(PATH).map(String::as_str)
}

/// Returns the user that a session's container was made for.
#[must_use]
pub fn user(labels: &Labels) -> Option<&str> {
    labels.get(USER).map(String::as_str)
}

/// Returns what a session reaches over the network. Those of earlier versions do not say and reach what they
/// always did; a word of a later version is more than nothing and less than all, so that it is taken for nothing.
#[must_use]
pub fn network(labels: &Labels) -> Network {
    let word = labels.get(NETWORK);
    word.map_or(Network::Own, |word| word.parse().unwrap_or(Network::None))
}

/// Writes the labels of a network: of one session, or of all.
#[must_use]
pub fn of_network(session: Option<SessionId>) -> Labels {
    let word = if session.is_some() {
        OF_SESSION
    } else {
        SHARED
    };
    let session = session.map(|id| (SESSION.to_owned(), id.to_string()));
    let all = [
        (NETWORK.to_owned(), word.to_owned()),
        (VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ];
    all.into_iter().chain(session).collect()
}

/// Returns whether a network is for all sessions.
#[must_use]
pub fn is_shared_network(labels: &Labels) -> bool {
    labels.get(NETWORK).is_some_and(|word| word == SHARED) && session(labels).is_none()
}

/// Returns the session that the labels name.
#[must_use]
pub fn session(labels: &Labels) -> Option<SessionId> {
    labels.get(SESSION)?.parse().ok()
}

/// Returns whether the labels are those of this session.
#[must_use]
pub fn belong_to(labels: &Labels, id: SessionId) -> bool {
    session(labels) == Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_labels_say_is_what_was_asked_for() {
        let id = SessionId::random();
        for request in [
            json!({ "workspace_id": "shop" }),
            json!({ "workspace_id": "shop", "allow_privilege_gain": true }),
            json!({ "workspace_id": "shop", "project_name": "api", "description": "a\nb", "template": "python" }),
            json!({ "workspace_id": "shop", "image": "127.0.0.1:5000/x:1", "network": "own" }),
            json!({ "workspace_id": "shop", "network": "none" }),
        ] {
            let request = CreateSession::from_json(&request).unwrap();
            let labels = of(id, &request, "2026-01-02T03:04:05Z");
            assert!(belong_to(&labels, id));
            assert!(!belong_to(&labels, SessionId::random()));
            assert_eq!(
                read(&labels),
                Some((id, request, "2026-01-02T03:04:05Z".to_owned()))
            );
        }
        assert_eq!(read(&Labels::new()), None);
    }

    #[test]
    fn a_session_reaches_no_more_than_its_labels_say() {
        let request = CreateSession::from_json(&json!({ "workspace_id": "shop" })).unwrap();
        let mut labels = of(SessionId::random(), &request, "2026-01-02T03:04:05Z");
        assert_eq!(network(&labels), Network::Own);
        for word in ["none", "", "OWN", "allow-list"] {
            labels.insert(NETWORK.to_owned(), word.to_owned());
            assert_eq!(network(&labels), Network::None, "{word}");
        }
        // Versions before this one wrote no such label.
        labels.remove(NETWORK);
        assert_eq!(network(&labels), Network::Own);
        assert_eq!(read(&labels).unwrap().1.network, Network::Own);
    }

    #[test]
    fn a_network_is_for_all_sessions_or_for_one() {
        let id = SessionId::random();
        let of_one = of_network(Some(id));
        assert!(belong_to(&of_one, id) && !is_shared_network(&of_one));
        assert!(is_shared_network(&of_network(None)));
        assert!(!is_shared_network(&Labels::new()));
    }

    #[test]
    fn labels_of_any_length_are_cut_to_what_could_have_been_asked_for() {
        let request = json!({ "workspace_id": "shop", "project_name": "api", "image": "x:1" });
        let request = CreateSession::from_json(&request).unwrap();
        let mut labels = of(SessionId::random(), &request, "2026-01-02T03:04:05Z");
        for name in [WORKSPACE, PROJECT, DESCRIPTION, CREATED] {
            labels.insert(name.to_owned(), "é".repeat(1_000_000));
        }
        let (_, read, created) = read(&labels).unwrap();
        let length = |text: &str| text.chars().count();
        assert_eq!(length(&read.workspace_id), WORKSPACE_ID_MAX);
        assert_eq!(
            read.project_name.as_deref().map(length),
            Some(PROJECT_NAME_MAX)
        );
        assert_eq!(
            read.description.as_deref().map(length),
            Some(DESCRIPTION_MAX)
        );
        assert_eq!(length(&created), LONGEST);
    }
}
