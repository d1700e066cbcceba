//! What the demo shows: progress while it starts, then where to look and what to try.

use std::borrow::Cow;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::layout::{DOMAIN, Layout, REGIONS_PER_ZONE};
use super::ready::Account;

/// Steps that the progress shows.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    steps: u64,
    done: u64,
}

impl Progress {
    /// A bar on a terminal, plain lines elsewhere.
    pub(crate) fn new(steps: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps);
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {bar:24.cyan/dim} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, steps, done: 0 }
    }

    /// What is done now.
    pub(crate) fn step(&mut self, what: impl Into<Cow<'static, str>>) {
        let what = what.into();
        self.done += 1;
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.done.min(self.steps) - 1);
                bar.set_message(what);
            }
            None => eprintln!("[{}/{}] {what}", self.done, self.steps),
        }
    }

    /// Leaves the screen as it was.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The text that stays on the screen while the demo runs.
pub(crate) fn print_guide(layout: &Layout, accounts: &[Account], binary: &str) {
    let regions = &layout.regions;
    let shards = layout.shards as usize * layout.zones.len();
    println!("\nPostrider is running: {} regions, {shards} mailbox shards, three replicas each.\n", regions.len());
    if layout.zones.len() > 1 {
        for zone in layout.zones {
            let names: Vec<&str> = layout.regions_of(zone).iter().map(|region| region.name).collect();
            println!("  zone {:<8} has the mail of {}, in {} only", zone.name, zone.domain, names.join(", "));
        }
        println!();
    }
    println!("  {:<10}  {:<24}  {:<16}  {:<16}  storage nodes (gRPC)", "region", "webmail, REST, /docs", "SMTP", "DNS");
    for region in regions {
        let nodes: Vec<String> = region.nodes.iter().map(|node| format!("{} ({})", node.id, node.grpc)).collect();
        println!(
            "  {:<10}  {:<24}  {:<16}  {:<16}  {}",
            region.name,
            format!("http://{}", region.rest()),
            region.smtp(),
            region.dns(),
            nodes.join(", ")
        );
    }
    let address = match accounts.first() {
        Some(first) => {
            println!("\n  {:<28}  password", "account");
            for account in accounts {
                println!("  {:<28}  {}", account.address, account.password);
            }
            first.address.clone()
        }
        None => format!("you@{DOMAIN}"),
    };
    print_commands(layout, accounts.first(), &address, binary);
}

fn print_commands(layout: &Layout, account: Option<&Account>, address: &str, binary: &str) {
    let (near, far) = (&layout.regions[0], &layout.regions[REGIONS_PER_ZONE - 1]);
    println!("\nOpen http://{} in a browser: the webmail. Or try it (copy and paste):\n", near.rest());
    let password = match account {
        Some(account) => account.password.clone(),
        None => {
            println!("  # sign up: anybody may, here");
            println!(
                "  curl -s http://{}/v1/accounts -H 'Content-Type: application/json' \\\n    \
                 -d '{{\"address\": \"{address}\", \"password\": \"correct horse battery\", \"name\": \"You\"}}'\n",
                near.rest()
            );
            "correct horse battery".to_owned()
        }
    };
    println!("  # send a mail in at {}", near.name);
    println!(
        "  printf 'From: me@home.example\\r\\nTo: {address}\\r\\nSubject: Hello\\r\\n\\r\\nIt works.\\r\\n' |\n    \
         curl -s smtp://{} --mail-from me@home.example --mail-rcpt {address} -T -\n",
        near.smtp()
    );
    println!("  # log in and read it at {}", far.name);
    println!(
        "  TOKEN=$(curl -s http://{}/v1/sessions -H 'Content-Type: application/json' \\\n    \
         -d '{{\"address\": \"{address}\", \"password\": \"{password}\"}}' | sed 's/.*\"token\":\"\\([^\"]*\\)\".*/\\1/')",
        far.rest()
    );
    println!("  curl -s http://{}/v1/folders -H \"Authorization: Bearer $TOKEN\"", far.rest());
    println!("  curl -s http://{}/v1/folders/1/messages -H \"Authorization: Bearer $TOKEN\"\n", far.rest());
    println!("  # ask the cluster, kill a storage node and ask again");
    let node = &near.nodes[0].grpc;
    println!("  {binary} ctl --cluster {node} status");
    println!("  {binary} ctl --cluster {node} user {address}\n");
    println!(
        "  # keep it by Terraform (deploy/terraform/provider/docs; docs/operating/terraform.md says how terraform finds the provider)"
    );
    println!("  export POSTRIDER_CLUSTER={node} POSTRIDER_IDENTITY={}\n", layout.ctl_dir().display());
    println!("Logs, data and command lines: {}. Ctrl-C stops everything; the mail stays.", layout.root.display());
}
