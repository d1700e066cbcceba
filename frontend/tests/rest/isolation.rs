//! P-9: nobody reads or changes anything of another account, by any path, id or cursor.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Person, World, text};

/// What somebody owns: one id of each kind, and his cursors.
struct Property {
    folder: String,
    label: String,
    session: String,
    app_password: String,
    draft: String,
    outbox: String,
    message: String,
    thread: String,
    attachment: String,
    messages_cursor: String,
    threads_cursor: String,
    label_cursor: String,
}

async fn property(world: &World, owner: &Person) -> Property {
    let made = owner.client.post("/v1/folders", &json!({"name": "Private"})).await.ok();
    let folder = made["id"].as_str().unwrap().to_owned();
    let made = owner.client.post("/v1/labels", &json!({"name": "Private", "color": "#123456"})).await.ok();
    let label = made["id"].as_str().unwrap().to_owned();
    let file = STANDARD.encode(vec![b's'; 200_000]);
    let raw = format!(
        "From: a@elsewhere.example\r\nSubject: secret\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsecret\r\n--b\r\n\
         Content-Type: text/plain\r\nContent-Disposition: attachment; filename=secret\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{file}\r\n--b--\r\n"
    );
    for number in 0..3 {
        let id = world.deliver(owner, text(&format!("secret{number}"))).await;
        owner
            .client
            .patch(&format!("/v1/messages/{id}"), &json!({"folder_id": folder, "labels": {"add": [label]}}))
            .await
            .ok();
    }
    let message = world.deliver(owner, raw).await.to_string();
    let path = format!("/v1/messages/{message}");
    owner.client.patch(&path, &json!({"folder_id": folder})).await.ok();
    let read = owner.client.get(&path).await.ok();
    let sessions = owner.client.get("/v1/sessions").await.ok();
    let draft =
        owner.client.post("/v1/drafts", &json!({"subject": "secret", "bcc": ["x@elsewhere.example"]})).await.ok();
    let scheduled = json!({"to": ["x@elsewhere.example"], "subject": "secret", "send_at": "2027-06-01T00:00:00Z"});
    let scheduled = owner.client.post("/v1/messages", &scheduled).await.ok();
    let made = owner.client.post("/v1/app-passwords", &json!({"name": "mine", "scopes": ["smtp"]})).await.ok();
    let cursor = async |list: &str| {
        let page = owner.client.get(&format!("/v1/{list}?limit=1")).await.ok();
        page["next_cursor"].as_str().unwrap().to_owned()
    };
    Property {
        thread: read["thread_id"].as_str().unwrap().to_owned(),
        attachment: read["attachments"][0]["id"].as_str().unwrap().to_owned(),
        messages_cursor: cursor(&format!("folders/{folder}/messages")).await,
        threads_cursor: cursor(&format!("folders/{folder}/threads")).await,
        label_cursor: cursor(&format!("labels/{label}/messages")).await,
        label,
        session: sessions[0]["id"].as_str().unwrap().to_owned(),
        app_password: made["id"].as_str().unwrap().to_owned(),
        draft: draft["id"].as_str().unwrap().to_owned(),
        outbox: scheduled["outbox_id"].as_str().unwrap().to_owned(),
        folder,
        message,
    }
}

/// Where paths of administrators begin.
const ADMINISTRATION: &str = "/v1/admin/";

/// Every path of the document with ids of `target` in it, in every method.
fn attempts(document: &Value, target: &Property) -> Vec<(Method, String)> {
    let mut attempts = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        // Those of administrators are of no account, links to unsubscribe carry their own proof, and a list of whom not to send to is asked
        // for by addresses, which are nobody's.
        let is_of_ids = !template.starts_with(ADMINISTRATION)
            && !["/v1/unsubscribe/{token}", "/v1/suppressions/{address}"].contains(&template.as_str());
        if !template.contains('{') || !is_of_ids {
            continue;
        }
        let path = template
            .replace("{folder_id}", &target.folder)
            .replace("{label_id}", &target.label)
            .replace("{id}", &target.session)
            .replace("{app_password_id}", &target.app_password)
            .replace("{draft_id}", &target.draft)
            .replace("{outbox_id}", &target.outbox)
            .replace("{message_id}", &target.message)
            .replace("{thread_id}", &target.thread)
            .replace("{attachment_id}", &target.attachment);
        assert!(!path.contains('{'), "the test knows no id for {template}");
        for method in item.as_object().unwrap().keys() {
            attempts.push((method.to_uppercase().parse().unwrap(), path.clone()));
        }
    }
    attempts
}

fn body(method: &Method, path: &str) -> Option<Value> {
    match (method.as_str(), path) {
        ("PATCH", path) if path.starts_with("/v1/folders") || path.starts_with("/v1/labels") => {
            Some(json!({"name": "Mine"}))
        }
        ("PATCH", _) => Some(json!({"is_read": true})),
        ("PUT", _) => Some(json!({"subject": "mine"})),
        _ => None,
    }
}

/// All that the owner can see of his mailbox.
async fn everything(owner: &Person) -> Vec<Value> {
    let folders = owner.client.get("/v1/folders").await.ok();
    let mut seen = vec![owner.client.get("/v1/profile").await.ok(), folders.clone()];
    for folder in folders.as_array().unwrap() {
        let path = format!("/v1/folders/{}/messages", folder["id"].as_str().unwrap());
        seen.push(owner.client.get(&path).await.ok());
    }
    let labels = owner.client.get("/v1/labels").await.ok();
    for label in labels.as_array().unwrap() {
        let path = format!("/v1/labels/{}/messages", label["id"].as_str().unwrap());
        seen.push(owner.client.get(&path).await.ok());
    }
    seen.push(labels);
    seen.push(owner.client.get("/v1/app-passwords").await.ok());
    seen.push(owner.client.get("/v1/outbox").await.ok());
    seen.push(owner.client.get("/v1/suppressions").await.ok());
    seen.push(owner.client.get("/v1/feedback").await.ok());
    seen
}

#[tokio::test]
async fn nothing_of_another_account() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    // Bob has more folders and labels than Ada, so that none of his own has a number that is also hers by chance.
    for number in 0..3 {
        bob.client.post("/v1/folders", &json!({"name": format!("f{number}")})).await.ok();
        bob.client.post("/v1/labels", &json!({"name": format!("l{number}"), "color": "#000000"})).await.ok();
    }
    let target = property(&world, &bob).await;
    let before = everything(&bob).await;
    let attempts = attempts(world.client.document(), &target);
    assert!(attempts.len() >= 10, "{attempts:?}");
    let missing = Property {
        folder: "999999".to_owned(),
        label: "999999".to_owned(),
        session: "0".repeat(32),
        app_password: "0".repeat(32),
        draft: "0".repeat(32),
        outbox: "999999".to_owned(),
        message: "0".repeat(32),
        thread: "0".repeat(32),
        attachment: "2".to_owned(),
        messages_cursor: String::new(),
        threads_cursor: String::new(),
        label_cursor: String::new(),
    };
    let missing = self::attempts(world.client.document(), &missing);
    for ((method, path), (_, missing)) in attempts.iter().zip(&missing) {
        let theirs = ada.client.send(method.clone(), path, &[], body(method, path).as_ref()).await;
        assert_eq!(theirs.problem(), "not_found", "{method} {path}");
        // Not even that it is there can be told: the answer is the one for what is not there, byte for byte.
        let nothing = ada.client.send(method.clone(), missing, &[], body(method, missing).as_ref()).await;
        assert_eq!(theirs.bytes, nothing.bytes, "{method} {path}");
        let nobody = world.client.send(method.clone(), path, &[], body(method, path).as_ref()).await;
        assert_eq!(nobody.problem(), "unauthenticated", "{method} {path}");
    }
    assert_eq!(everything(&bob).await, before);
    world.cluster.verify();
}

#[tokio::test]
async fn nothing_that_is_an_administrators() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let document = world.client.document();
    let mut tried = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        if !template.starts_with(ADMINISTRATION) {
            continue;
        }
        let path = template
            .replace("{account}", &bob.address)
            .replace("{domain}", bob.address.split_once('@').unwrap().1)
            .replace("{address}", "x@elsewhere.example")
            .replace("{destination}", "elsewhere.example")
            .replace("{node}", "1");
        for method in item.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let hers = ada.client.send(method.clone(), &path, &[], None).await;
            // Some take the token alone; whoever else comes with an account is told that it is no operator's.
            assert!(["unauthenticated", "not_operator"].contains(&hers.problem().as_str()), "{method} {path}");
            let nobodys = world.client.send(method.clone(), &path, &[], None).await;
            assert_eq!(nobodys.problem(), "unauthenticated", "{method} {path}");
            tried += 1;
        }
    }
    assert!(tried >= 26, "{tried}");
    world.cluster.verify();
}

#[tokio::test]
async fn nothing_through_bodies_and_cursors() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    for number in 0..3 {
        bob.client.post("/v1/folders", &json!({"name": format!("f{number}")})).await.ok();
        bob.client.post("/v1/labels", &json!({"name": format!("l{number}"), "color": "#000000"})).await.ok();
    }
    let target = property(&world, &bob).await;
    let own = world.deliver_text(&ada, "own").await.to_string();
    let before = (everything(&ada).await, everything(&bob).await);
    let inbox = ada.folder("inbox").await;

    let post = async |path: &str, body: Value| ada.client.post(path, &body).await.problem();
    let batch = "/v1/messages/batch";
    assert_eq!(post(batch, json!({"ids": [own, target.message], "is_read": true})).await, "not_found");
    assert_eq!(post(batch, json!({"ids": [target.message], "delete": true})).await, "not_found");
    assert_eq!(post(batch, json!({"ids": [own], "folder_id": target.folder})).await, "folder_unknown");
    let moved = ada.client.patch(&format!("/v1/messages/{own}"), &json!({"folder_id": target.folder})).await;
    assert_eq!(moved.problem(), "folder_unknown");
    for change in ["add", "remove"] {
        let labels = json!({"labels": {change: [target.label]}});
        let labelled = ada.client.patch(&format!("/v1/messages/{own}"), &labels).await;
        assert_eq!(labelled.problem(), "label_unknown");
    }
    let labels = json!({"add": [target.label]});
    assert_eq!(post(batch, json!({"ids": [own], "labels": labels})).await, "label_unknown");
    assert_eq!(post(batch, json!({"ids": [target.message], "keywords": {"add": ["$junk"]}})).await, "not_found");
    let answer = json!({"to": [bob.address], "in_reply_to": target.message});
    assert_eq!(post("/v1/messages", answer).await, "reply_unknown");
    let upload = world.upload(&bob, b"secret").await;
    for path in ["/v1/messages", "/v1/drafts"] {
        let theirs = json!({"to": [ada.address], "attachments": [{"filename": "x", "upload_id": upload}]});
        assert_eq!(post(path, theirs).await, "upload_unknown", "{path}");
    }

    for (list, cursor) in [("messages", &target.messages_cursor), ("threads", &target.threads_cursor)] {
        for folder in [&inbox, &target.folder] {
            let path = format!("/v1/folders/{folder}/{list}?cursor={cursor}");
            assert_eq!(ada.client.get(&path).await.problem(), "invalid_cursor", "{path}");
            assert_eq!(world.client.get(&path).await.problem(), "unauthenticated", "{path}");
        }
    }
    let mine = ada.client.post("/v1/labels", &json!({"name": "Mine", "color": "#000000"})).await.ok();
    let cursor = &target.label_cursor;
    for path in [
        format!("/v1/labels/{}/messages?cursor={cursor}", mine["id"].as_str().unwrap()),
        format!("/v1/labels/{}/messages?cursor={cursor}", target.label),
        format!("/v1/folders/{inbox}/messages?cursor={cursor}"),
    ] {
        assert_eq!(ada.client.get(&path).await.problem(), "invalid_cursor", "{path}");
    }
    ada.client.delete(&format!("/v1/labels/{}", mine["id"].as_str().unwrap())).await;
    assert_eq!(everything(&bob).await, before.1);
    // The profile tells of the label that came and went.
    assert_eq!(everything(&ada).await[1..], before.0[1..]);
}

#[tokio::test]
async fn a_folder_of_the_same_number_is_ones_own() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let inbox = bob.folder("inbox").await;
    assert_eq!(inbox, ada.folder("inbox").await);
    world.deliver_text(&bob, "secret").await;
    let page = ada.client.get(&format!("/v1/folders/{inbox}/messages")).await.ok();
    assert_eq!(page["messages"], json!([]));
    let mut waiting = ada.client.get("/v1/events/poll?since=0&timeout_s=0").await.ok();
    let changes = waiting["changes"].take();
    assert!(changes.as_array().unwrap().iter().all(|change| change["message_id"].is_null()), "{changes}");
}
