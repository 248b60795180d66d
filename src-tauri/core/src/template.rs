//! Templates: ready-made choices of an image. They are data files beside the source, read once.

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::image::ImageReference;

/// Names a template.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export, type = "string"))]
#[serde(transparent)]
pub struct TemplateId(String);

impl TemplateId {
    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns an id as it was written on a label; the template may be of another version of the app.
    #[must_use]
    pub fn from_label(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A template, checked.
#[derive(Debug, Clone)]
pub struct Template {
    /// Its id.
    pub id: TemplateId,
    /// What it is called.
    pub name: String,
    /// What it is for, in a few words.
    pub summary: String,
    /// The image it stands for.
    pub image: ImageReference,
}

/// A template as the UI shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct TemplateCard {
    /// Its id.
    pub id: TemplateId,
    /// What it is called.
    pub name: String,
    /// What it is for, in a few words.
    pub summary: String,
    /// The image it stands for, in the short form.
    pub image_name: String,
    /// Whether the image comes with the app, so that nothing is downloaded.
    pub built_in: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateFile {
    name: String,
    summary: String,
    /// Absent for the image that is built into the app.
    image: Option<String>,
}

/// The data files, in the order in which the UI shows them.
const FILES: [(&str, &str); 7] = [
    ("built-in", include_str!("../templates/built-in.json")),
    ("python", include_str!("../templates/python.json")),
    ("node", include_str!("../templates/node.json")),
    ("rust", include_str!("../templates/rust.json")),
    ("go", include_str!("../templates/go.json")),
    ("cpp", include_str!("../templates/cpp.json")),
    ("debian", include_str!("../templates/debian.json")),
];

static TEMPLATES: LazyLock<Vec<Template>> = LazyLock::new(|| {
    FILES
        .iter()
        .filter_map(|(id, text)| parse(id, text))
        .collect()
});

/// Returns all templates, in the order in which the UI shows them.
#[must_use]
pub fn all() -> &'static [Template] {
    &TEMPLATES
}

/// Returns the template of this id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Template> {
    all().iter().find(|template| template.id.as_str() == id)
}

impl Template {
    /// Returns what the UI shows.
    #[must_use]
    pub fn card(&self) -> TemplateCard {
        TemplateCard {
            id: self.id.clone(),
            name: self.name.clone(),
            summary: self.summary.clone(),
            image_name: self.image.familiar(),
            built_in: self.image.is_built_in(),
        }
    }
}

fn parse(id: &str, text: &str) -> Option<Template> {
    let file: TemplateFile = serde_json::from_str(text).ok()?;
    let image = match file.image {
        Some(image) => image.parse().ok()?,
        None => ImageReference::built_in(),
    };
    Some(Template {
        id: TemplateId(id.to_owned()),
        name: file.name,
        summary: file.summary,
        image,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_file_is_a_template() {
        assert_eq!(all().len(), FILES.len());
        for template in all() {
            assert!(
                !template.summary.is_empty() && template.summary.len() <= 60,
                "{}",
                template.id
            );
        }
    }

    #[test]
    fn only_the_first_template_is_built_in() {
        let built_in: Vec<_> = all()
            .iter()
            .map(|template| template.card().built_in)
            .collect();
        assert_eq!(built_in, [true, false, false, false, false, false, false]);
    }
}
