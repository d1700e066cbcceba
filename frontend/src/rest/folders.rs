//! `/v1/folders`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use postrider_api::id::{FolderId, ModSeq};
use postrider_api::limit::FOLDER_NAME_BYTES_MAX;
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{answer, outcome, query};
use postrider_api::request;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::account::Intent;
use crate::rest::conditional::{Conditional, Conditioned};
use crate::rest::extract::{JsonBody, Params, PathId};
use crate::rest::intent::{Intents, Repeat};
use crate::rest::json::Json;
use crate::rest::limit::DRAIN_ROUNDS_MAX;
use crate::rest::mailboxes::{Caller, Mailboxes, Written, wrong_answer};
use crate::rest::name;
use crate::rest::openapi::{IfNoneMatch, MinModseq, NotModified, ReadProblems, WriteProblems};
use crate::rest::problem::{Kind, Problem};
use crate::rest::view::{Folder, FolderRef};

/// List the folders.
#[utoipa::path(
    get, path = "/v1/folders", operation_id = "list_folders", tag = "folders", params(MinModseq, IfNoneMatch),
    responses((status = 200, description = "All folders", body = Vec<Folder>), NotModified, ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn list(
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
    conditional: Conditional,
    Params(params): Params<MinModseq>,
) -> Result<Response, Problem> {
    let query = query::Query::ListFolders(pb::ListFolders { user_id: caller.user.to_bytes() });
    let (read, tag) = match conditional.read(&mailboxes, &caller, query, params.get()).await? {
        Conditioned::Changed(read, tag) => (read, tag),
        Conditioned::Unchanged(unchanged) => return Ok(unchanged.into_response()),
    };
    let answer::Answer::Folders(folders) = read.answer else { return Err(wrong_answer()) };
    let folders: Vec<_> = folders.folders.into_iter().map(|row| Folder::of(caller.user, row)).collect();
    Ok((read.freshness, tag, Json(folders)).into_response())
}

/// A folder's name.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FolderName {
    /// 1 to 255 bytes, neither `/` nor control characters, no space at either end.
    #[schema(example = "Travel")]
    name: String,
}

impl FolderName {
    fn check(&self) -> Result<(), Problem> {
        name::check(&self.name, FOLDER_NAME_BYTES_MAX)
    }
}

/// Make a folder.
#[utoipa::path(
    post, path = "/v1/folders", operation_id = "create_folder", tag = "folders", request_body = FolderName,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")),
    responses((status = 201, description = "The folder exists", body = Folder), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn create(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    repeat: Repeat,
    JsonBody(body): JsonBody<FolderName>,
) -> Result<(StatusCode, [(http::HeaderName, String); 1], Written, Json<Folder>), Problem> {
    body.check()?;
    let intent = intents.of(caller.user, &repeat, &body)?;
    let create = pb::CreateFolder { user_id: caller.user.to_bytes(), name: body.name.clone() };
    let made = match mailboxes.write(&caller, intent, Op::CreateFolder(create)).await? {
        Ok(outcome::Result::FolderMade(made)) => made,
        Ok(_) => return Err(Problem::internal("a folder was made with an outcome of another kind")),
        Err(refused) => return Err(Problem::refused(&refused)),
    };
    let folder = Folder {
        id: FolderRef(FolderId(made.folder_id)),
        name: body.name,
        user_id: caller.user.into(),
        role: None,
        total: 0,
        unread: 0,
    };
    let location = [(LOCATION, format!("/v1/folders/{}", made.folder_id))];
    Ok((StatusCode::CREATED, location, Written(ModSeq(made.modseq)), Json(folder)))
}

/// A folder that was renamed.
#[derive(Serialize, ToSchema)]
pub(crate) struct RenamedFolder {
    /// The folder.
    id: FolderRef,
    /// Its name now.
    name: String,
    /// The change: a later read may ask for it as `min_modseq`.
    modseq: u64,
}

/// Rename a folder of one's own.
#[utoipa::path(
    patch, path = "/v1/folders/{folder_id}", operation_id = "rename_folder", tag = "folders", request_body = FolderName,
    params(("folder_id" = String, Path, description = "The folder")),
    responses((status = 200, description = "The folder has the name", body = RenamedFolder), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn rename(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    PathId(folder): PathId<FolderId>,
    repeat: Repeat,
    JsonBody(body): JsonBody<FolderName>,
) -> Result<(Written, Json<RenamedFolder>), Problem> {
    body.check()?;
    let intent = intents.of(caller.user, &repeat, &body)?;
    let update = pb::UpdateFolder { user_id: caller.user.to_bytes(), folder_id: folder.0, name: body.name.clone() };
    let written = mailboxes.change(&caller, intent, Op::UpdateFolder(update)).await?;
    let renamed = RenamedFolder { id: FolderRef(folder), name: body.name, modseq: written.0 };
    Ok((Written(written), Json(renamed)))
}

/// Remove a folder of one's own; its messages go to Trash.
#[utoipa::path(
    delete, path = "/v1/folders/{folder_id}", operation_id = "delete_folder", tag = "folders",
    params(("folder_id" = String, Path, description = "The folder")),
    responses((status = 204, description = "The folder is gone"), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn remove(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    PathId(folder): PathId<FolderId>,
    repeat: Repeat,
) -> Result<(Written, StatusCode), Problem> {
    let whole = intents.without_body(caller.user, &repeat)?;
    let mut intent = whole.clone();
    for round in 0..DRAIN_ROUNDS_MAX {
        let delete = pb::DeleteFolder { user_id: caller.user.to_bytes(), folder_id: folder.0 };
        match mailboxes.write(&caller, intent, Op::DeleteFolder(delete)).await? {
            Ok(outcome::Result::Changed(changed)) => {
                return Ok((Written(ModSeq(changed.modseq)), StatusCode::NO_CONTENT));
            }
            // Each round is a step of its own, so that a client who asks again goes through the same ones.
            Ok(outcome::Result::FolderDraining(_)) => {
                let request = request::of_step(whole.request, &format!("drain {round}"));
                intent = Intent { request, ..whole.clone() };
            }
            Ok(_) => return Err(Problem::internal("a folder was deleted with an outcome of another kind")),
            Err(refused) => return Err(Problem::refused(&refused)),
        }
    }
    Err(Problem::new(Kind::Busy).detail("the folder is large: many of its messages are in Trash now, ask again"))
}
