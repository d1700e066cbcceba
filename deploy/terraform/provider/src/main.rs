//! `terraform-provider-postrider`: Terraform starts it and speaks with it.

use std::process::ExitCode;

use postrider_terraform::PostriderProvider;
use postrider_terraform::protocol::{handshake, log};

#[tokio::main]
async fn main() -> ExitCode {
    log::start();
    match handshake::serve(PostriderProvider::new()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("terraform-provider-postrider: {error}");
            ExitCode::FAILURE
        }
    }
}
