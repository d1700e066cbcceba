//! Searches over REST: what is asked of the shard, and what becomes of its answer.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::world::{Person, World};

/// Percent-encoded.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

async fn find(person: &Person, q: &str, more: &str) -> Value {
    person.client.get(&format!("/v1/search?q={}{more}", encoded(q))).await.ok()
}

/// Subjects of what is found.
async fn subjects(person: &Person, q: &str, more: &str) -> Vec<String> {
    let page = find(person, q, more).await;
    let messages = page["messages"].as_array().unwrap().iter();
    messages.map(|message| message["subject"].as_str().unwrap().to_owned()).collect()
}

async fn change(person: &Person, id: &str, change: Value) {
    person.client.patch(&format!("/v1/messages/{id}"), &change).await.ok();
}

#[tokio::test]
async fn words_and_conditions() {
    let world = World::new().await;
    let ada = world.person().await;
    let mut ids = Vec::new();
    for subject in ["budget march", "budget april", "travel april"] {
        ids.push(world.deliver_text(&ada, subject).await.to_string());
    }
    let label = ada.client.post("/v1/labels", &json!({"name": "Work", "color": "#2e7d32"})).await.ok();
    change(&ada, &ids[0], json!({"is_read": true, "labels": {"add": [label["id"]]}})).await;
    change(&ada, &ids[1], json!({"is_flagged": true})).await;
    change(&ada, &ids[2], json!({"folder_id": ada.folder("archive").await})).await;
    for (q, more, expected) in [
        ("budget", "", vec!["budget april", "budget march"]),
        ("", "", vec!["travel april", "budget april", "budget march"]),
        ("april -travel", "", vec!["budget april"]),
        ("march OR travel", "", vec!["travel april", "budget march"]),
        ("is:unread budget", "", vec!["budget april"]),
        ("is:starred", "", vec!["budget april"]),
        ("label:work", "", vec!["budget march"]),
        ("in:archive", "", vec!["travel april"]),
        ("in:(inbox OR archive) april", "", vec!["travel april", "budget april"]),
        ("subject:travel from:ada", "", vec!["travel april"]),
        ("larger:1M", "", vec![]),
        ("newer_than:1d travel", "", vec!["travel april"]),
        ("older_than:1d", "", vec![]),
        // Parameters beside it.
        ("budget", "&is_read=false", vec!["budget april"]),
        ("budget", "&is_read=true", vec!["budget march"]),
        ("april", "&in=archive", vec!["travel april"]),
        ("april", "&in=Inbox&has_attachment=false", vec!["budget april"]),
        ("april", "&has_attachment=true", vec![]),
        ("april", "&after=2020-01-01&before=2200-01-01T00:00:00Z", vec!["travel april", "budget april"]),
        ("april", "&before=2020-01-01", vec![]),
        ("bud", "", vec![]),
        ("bud", "&as_you_type=true", vec!["budget april", "budget march"]),
    ] {
        assert_eq!(subjects(&ada, q, more).await, expected, "{q} {more}");
    }
    // Without q, all that the parameters let through.
    let page = ada.client.get("/v1/search?is_read=true").await.ok();
    assert_eq!((page["messages"].as_array().unwrap().len(), &page["total"]), (1, &json!({"count": 1, "exact": true})));
}

#[tokio::test]
async fn junk_and_trash_are_searched_when_they_are_named() {
    let world = World::new().await;
    let ada = world.person().await;
    for (subject, role) in [("report a", "inbox"), ("report b", "trash"), ("report c", "junk")] {
        let id = world.deliver_text(&ada, subject).await.to_string();
        if role != "inbox" {
            change(&ada, &id, json!({"folder_id": ada.folder(role).await})).await;
        }
    }
    for (q, more, expected) in [
        ("report", "", vec!["report a"]),
        ("report in:trash", "", vec!["report b"]),
        ("report in:spam", "", vec!["report c"]),
        ("report", "&in=trash", vec!["report b"]),
        ("report in:anywhere", "", vec!["report c", "report b", "report a"]),
        ("report", "&in=anywhere", vec!["report c", "report b", "report a"]),
        ("report -in:inbox", "", vec![]),
    ] {
        assert_eq!(subjects(&ada, q, more).await, expected, "{q} {more}");
    }
}

#[tokio::test]
async fn hits_show_where_they_match() {
    let world = World::new().await;
    let ada = world.person().await;
    let raw = "From: Ada <ada@elsewhere.example>\r\nSubject: =?utf-8?q?=F0=9F=8E=89_budget?=\r\n\
               Content-Type: text/plain; charset=utf-8\r\n\r\n\u{1f389}\u{1f389} the budget\r\n";
    let id = world.deliver(&ada, raw).await.to_string();
    let page = find(&ada, "budget", "").await;
    let hit = &page["messages"][0];
    assert_eq!(hit["id"], json!(id));
    // An emoji is two units of what a browser counts, and four bytes.
    assert_eq!(hit["subject_marks"], json!([{"start": 3, "end": 9}]));
    assert_eq!(hit["snippet"], json!({"text": "\u{1f389}\u{1f389} the budget", "marks": [{"start": 9, "end": 15}]}));
    // All that a list has.
    let mut listed = ada.messages("inbox").await[0].clone();
    let members = listed.as_object_mut().unwrap();
    members.insert("snippet".to_owned(), hit["snippet"].clone());
    members.insert("subject_marks".to_owned(), hit["subject_marks"].clone());
    assert_eq!(&listed, hit);
}

#[tokio::test]
async fn pages_stay_where_they_are_while_mail_arrives() {
    let world = World::new().await;
    let ada = world.person().await;
    let mut expected = Vec::new();
    for number in 0..7 {
        expected.push(world.deliver_text(&ada, &format!("report {}", "x".repeat(number))).await.to_string());
    }
    expected.reverse();
    for sort in ["date", "relevance"] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = find(&ada, "report", &format!("&sort={sort}&limit=3{cursor}")).await;
            found.extend(page["messages"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
            // In front of all pages, by date as well as by relevance.
            world.deliver_text(&ada, &format!("report {}", "y".repeat(100))).await;
        }
        assert_eq!(found.len(), if sort == "date" { 7 } else { 9 }, "{sort}");
        found.retain(|id| expected.contains(id));
        assert_eq!(found, expected, "{sort}");
    }
}

#[tokio::test]
async fn a_cursor_goes_on_with_its_own_search() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    for person in [&ada, &bob] {
        for number in 0..3 {
            world.deliver_text(person, &format!("report {number}")).await;
        }
    }
    let page = find(&ada, "report", "&limit=1").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(subjects(&ada, "report", &format!("&limit=2&cursor={cursor}")).await, ["report 1", "report 0"]);
    let at = |q: &str, more: &str| format!("/v1/search?q={}&cursor={cursor}{more}", encoded(q));
    let others = [
        at("reports", ""),
        at("report", "&sort=relevance"),
        at("report", "&is_read=false"),
        at("report", "&has_attachment=false"),
        at("report", "&in=inbox"),
        at("report", "&after=2020-01-01"),
        at("report", "&before=2200-01-01"),
        at("report", "&as_you_type=true"),
        at("report", "").replace("/search?", "/search/threads?"),
        format!("/v1/folders/{}/messages?cursor={cursor}", ada.folder("inbox").await),
    ];
    for other in others {
        assert_eq!(ada.client.get(&other).await.problem(), "invalid_cursor", "{other}");
    }
    assert_eq!(bob.client.get(&at("report", "")).await.problem(), "invalid_cursor");
    assert_eq!(world.client.get(&at("report", "")).await.problem(), "unauthenticated");
    let list = format!("/v1/folders/{}/messages?limit=1", ada.folder("inbox").await);
    let page = ada.client.get(&list).await.ok();
    let path = format!("/v1/search?q=report&cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!(ada.client.get(&path).await.problem(), "invalid_cursor");
}

#[tokio::test]
async fn conversations() {
    let world = World::new().await;
    let ada = world.person().await;
    let message = |id: &str, answers: &str, subject: &str| {
        format!(
            "From: a@elsewhere.example\r\nSubject: {subject}\r\nMessage-ID: <{id}@x.example>\r\n\
             In-Reply-To: <{answers}@x.example>\r\n\r\nhello\r\n"
        )
    };
    for (id, answers, subject) in [
        ("1", "none1", "budget"),
        ("2", "1", "Re: budget"),
        ("3", "none3", "travel"),
        ("4", "none4", "budget again"),
        ("5", "1", "Re: budget"),
    ] {
        world.deliver(&ada, message(id, answers, subject)).await;
    }
    let page = ada.client.get("/v1/search/threads?q=budget").await.ok();
    assert_eq!(page["total"], json!({"count": 2, "exact": true}));
    let threads = page["threads"].as_array().unwrap();
    let shown: Vec<_> = threads.iter().map(|thread| (&thread["hits"], &thread["first"]["subject"])).collect();
    assert_eq!(shown, [(&json!(3), &json!("Re: budget")), (&json!(1), &json!("budget again"))]);
    assert_eq!(threads[0]["id"], threads[0]["first"]["thread_id"]);
    let first = ada.client.get("/v1/search/threads?q=budget&limit=1").await.ok();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = ada.client.get(&format!("/v1/search/threads?q=budget&limit=1&cursor={cursor}")).await.ok();
    assert_eq!((&second["threads"][0], &second["next_cursor"]), (&threads[1], &Value::Null));
}

#[tokio::test]
async fn people_are_suggested() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    world.deliver_text(&ada, "one").await;
    world.deliver_text(&ada, "two").await;
    let people = ada.client.get("/v1/search/suggest?prefix=ad").await.ok();
    let one = json!({"name": "Ada", "email": "ada@elsewhere.example", "written": 0, "heard": 2, "last_at": "2026-11-20T12:00:00Z"});
    assert_eq!(people, json!({"people": [one]}));
    assert_eq!(ada.client.get("/v1/search/suggest").await.ok(), json!({"people": [one]}));
    assert_eq!(ada.client.get("/v1/search/suggest?prefix=x").await.ok(), json!({"people": []}));
    assert_eq!(bob.client.get("/v1/search/suggest").await.ok(), json!({"people": []}));
    for bad in ["limit=0", "limit=51", "q=a", &format!("prefix={}", "x".repeat(256))] {
        assert_eq!(ada.client.get(&format!("/v1/search/suggest?{bad}")).await.problem(), "invalid_query", "{bad}");
    }
}

#[tokio::test]
async fn what_cannot_be_understood_is_pointed_at() {
    let world = World::new().await;
    let ada = world.person().await;
    let wrong = async |query: &str| {
        let answer = ada.client.get(&format!("/v1/search?{query}")).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::BAD_REQUEST, "invalid_search"), "{query}");
        let document = answer.json();
        (
            document["parameter"].clone(),
            document["position"].clone(),
            document["length"].clone(),
            document["detail"].clone(),
        )
    };
    let (parameter, position, length, detail) = wrong(&format!("q={}", encoded("\u{1f389} is:purple"))).await;
    assert_eq!((parameter, position, length), (json!("q"), json!(6), json!(6)));
    assert!(detail.as_str().unwrap().contains("unread"), "{detail}");
    let (parameter, position, ..) = wrong("q=a&after=yesterday").await;
    assert_eq!((parameter, position), (json!("after"), json!(0)));
    wrong(&format!("q={}", "(".repeat(33))).await;
    wrong(&format!("q={}", "a+".repeat(191))).await;
    // With all parameters, what the text may have at most is no more than a node takes.
    let parameters = "is_read=false&has_attachment=false&in=inbox&after=2020-01-01&before=2200-01-01";
    assert!(ada.client.get(&format!("/v1/search?q={}&{parameters}", "a+".repeat(189))).await.status.is_success());
    wrong(&format!("q={}", "a".repeat(4097))).await;
    // While somebody types it is not an error yet.
    assert_eq!(find(&ada, "a is:unr", "&as_you_type=true").await["messages"], json!([]));
    for bad in ["sort=size", "limit=0", "limit=201", "is_read=maybe", "query=a", "q=a&q=b", "threads=true"] {
        assert_eq!(ada.client.get(&format!("/v1/search?{bad}")).await.problem(), "invalid_query", "{bad}");
    }
    assert_eq!(ada.client.get("/v1/search?q=a&min_modseq=99999").await.problem(), "behind");
}

#[tokio::test]
async fn without_a_quorum_a_search_is_marked_stale() {
    let world = World::new().await;
    let ada = world.person().await;
    world.deliver_text(&ada, "report").await;
    world.cluster.lose_quorum(ada.shard);
    let answer = ada.client.get("/v1/search?q=report").await;
    assert_eq!(answer.ok()["messages"].as_array().unwrap().len(), 1);
    assert_eq!(answer.header("postrider-stale-ms"), Some("1700"));
}
