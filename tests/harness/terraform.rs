//! The real terraform in a folder. Nothing is installed: where it is missing a test says so, and fails in CI unless POSTRIDER_ALLOW_MISSING
//! names it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What may be named in POSTRIDER_ALLOW_MISSING.
const NEEDED: &str = "terraform";
/// The name by which terraform looks for it.
const PROVIDER: &str = "terraform-provider-postrider";

/// Terraform, as a test calls it.
pub struct Terraform {
    dir: PathBuf,
    environment: Vec<(String, String)>,
}

impl Terraform {
    /// In this folder. Whatever this machine's configuration of terraform says, nothing is fetched.
    pub fn new(dir: &Path) -> Self {
        let terraform = Self { dir: dir.to_owned(), environment: Vec::new() };
        terraform.with("TF_CLI_CONFIG_FILE", "/dev/null").with("TF_IN_AUTOMATION", "1")
    }

    /// With this in its environment; the last word counts.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("terraform");
        command.args(words).current_dir(&self.dir).stdin(Stdio::null());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("run terraform")
    }

    pub fn good(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "terraform {words:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What it says where it does not succeed.
    pub fn bad(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(!output.status.success(), "terraform {words:?}: {}", said(&output));
        flat(&said(&output))
    }

    /// The exit code of a plan: 0 without differences, 2 with some.
    pub fn plan(&self) -> (Option<i32>, String) {
        let output = self.run(&["plan", "-no-color", "-detailed-exitcode"]);
        (output.status.code(), said(&output))
    }
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// As one line: terraform breaks what it tells into lines, with a bar before each.
pub fn flat(text: &str) -> String {
    text.split(|letter: char| letter.is_whitespace() || letter == '│')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

pub fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Whether the test may go on; says it where not.
pub fn terraform_is_there() -> bool {
    if is_there(NEEDED) {
        return true;
    }
    let allowed = std::env::var("POSTRIDER_ALLOW_MISSING").unwrap_or_default();
    let is_passed_over = std::env::var("CI").is_err() || allowed.split(',').any(|name| name.trim() == NEEDED);
    assert!(is_passed_over, "there is no terraform; POSTRIDER_ALLOW_MISSING={NEEDED} passes over what needs it");
    eprintln!("PASSED OVER: there is no terraform");
    false
}

/// The provider's binary, beside the one under test: whoever builds the tests of the workspace builds it too, since its package has an integration
/// test of its own (`cargo nextest run -p postrider -p postrider-terraform`, where not all are built).
pub fn provider() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_postrider")).with_file_name(PROVIDER);
    assert!(
        path.exists(),
        "{}: build the tests of postrider-terraform with this one (`-p postrider -p postrider-terraform`)",
        path.display()
    );
    path
}

/// A CLI configuration by which terraform uses that provider without a registry.
pub fn with_provider(dir: &Path) -> PathBuf {
    let (provider, config) = (provider(), dir.join("terraformrc"));
    let at = provider.parent().expect("a directory").display();
    let text = format!(
        "provider_installation {{\n  dev_overrides {{\n    \"postrider/postrider\" = \"{at}\"\n  }}\n  direct {{}}\n}}\n"
    );
    std::fs::write(&config, text).expect("write the CLI configuration");
    config
}

/// A mirror in the file system, as somebody without a registry installs a provider, and the CLI configuration that names it.
pub fn with_mirror(dir: &Path) -> PathBuf {
    let (mirror, config) = (dir.join("mirror"), dir.join("mirror-terraformrc"));
    let at = mirror.join("registry.terraform.io/postrider/postrider/0.1.0/linux_amd64");
    std::fs::create_dir_all(&at).expect("make the mirror");
    std::fs::copy(provider(), at.join(format!("{PROVIDER}_v0.1.0"))).expect("copy the provider");
    let text =
        format!("provider_installation {{\n  filesystem_mirror {{\n    path = \"{}\"\n  }}\n}}\n", mirror.display());
    std::fs::write(&config, text).expect("write the CLI configuration");
    config
}
