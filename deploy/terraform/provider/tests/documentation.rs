//! The pages of `docs/` are what the schema says. `POSTRIDER_WRITE_PROVIDER_DOCS=1 cargo test -p postrider-terraform --test documentation` writes
//! them anew. That there is an integration test here has cargo build the binary whenever tests of the workspace are built, which
//! `tests/terraform_provider.rs` of the root package looks for beside its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postrider_terraform::documentation::pages;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn examples(path: &str) -> Option<String> {
    fs::read_to_string(root().join("examples").join(format!("{path}.tf"))).ok()
}

/// All pages below a directory, by their paths in it.
fn there(dir: &Path, within: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.expect("an entry of the directory");
        let name = format!("{within}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            there(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name, fs::read_to_string(entry.path()).expect("read a page"));
        }
    }
}

#[test]
fn the_pages_are_what_the_schema_says() {
    let (docs, made) = (root().join("docs"), pages(examples));
    let without: Vec<&String> =
        made.iter().filter(|(_, page)| !page.contains("## Example Usage")).map(|(name, _)| name).collect();
    assert!(without.is_empty(), "pages without an example: {without:?}");
    if std::env::var_os("POSTRIDER_WRITE_PROVIDER_DOCS").is_some() {
        for (name, page) in &made {
            let path = docs.join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("make the directory");
            fs::write(path, page).expect("write a page");
        }
    }
    let mut found = BTreeMap::new();
    there(&docs, "", &mut found);
    let stale: Vec<&String> =
        made.keys().chain(found.keys()).filter(|name| made.get(*name) != found.get(*name)).collect();
    assert!(
        stale.is_empty(),
        "POSTRIDER_WRITE_PROVIDER_DOCS=1 writes anew, and what is too much is to be removed: {stale:?}"
    );
}

#[test]
fn only_terraform_is_served() {
    let output = Command::new(env!("CARGO_BIN_EXE_terraform-provider-postrider"))
        .env_remove("TF_PLUGIN_MAGIC_COOKIE")
        .stdin(Stdio::null())
        .output()
        .expect("run the provider");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty() && said.contains("dev_overrides"), "{said}");
}
