//! What a list page costs: the whole way of a request over a kept connection, client included, on one thread. The shard is in
//! memory: this is the frontend's share of a page, and an upper bound of it.

#[path = "../tests/rest/client.rs"]
#[allow(dead_code)] // a bench needs less of it than the tests
mod client;
#[path = "../tests/rest/cluster.rs"]
#[allow(dead_code)]
mod cluster;
#[path = "../tests/rest/operators.rs"]
#[allow(dead_code)]
mod operators;
#[path = "../tests/rest/scan.rs"]
#[allow(dead_code)]
mod scan;
#[path = "../tests/rest/schema.rs"]
#[allow(dead_code)]
mod schema;
#[path = "../tests/rest/world.rs"]
#[allow(dead_code)]
mod world;

use std::hint::black_box;

use criterion::Criterion;
use tokio::runtime::Builder;

use crate::world::World;

fn list(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (url, token) = runtime.block_on(async {
        let world = World::new().await;
        let ada = world.person().await;
        for number in 0..200 {
            world.deliver_text(&ada, &format!("message number {number}")).await;
        }
        let inbox = ada.folder("inbox").await;
        let url = format!("{}/v1/folders/{inbox}/messages?limit=50", ada.client.base());
        let token = ada.client.token().to_owned();
        // The frontend serves as long as the runtime turns.
        std::mem::forget(world);
        (url, token)
    });
    let http = reqwest::Client::new();
    let get = async |url: &str| {
        let response = http.get(url).bearer_auth(&token).send().await.expect("an answer");
        assert!(response.status().is_success());
        response.bytes().await.expect("a body")
    };
    let health = url.split("/v1/").next().expect("a base").to_owned() + "/healthz";
    criterion.bench_function("list of 50", |bencher| {
        bencher.iter(|| black_box(runtime.block_on(get(&url))));
    });
    criterion.bench_function("healthz, for scale", |bencher| {
        bencher.iter(|| black_box(runtime.block_on(get(&health))));
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    list(&mut criterion);
    criterion.final_summary();
}
