//! Who has an address. A reserved one is answered too: its status says that it takes no mail yet.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{LookUpAddress, Missing};

use crate::directory::find;
use crate::query::{QueryError, missing};
use crate::store::Reader;

pub(crate) fn answer(reader: &impl Reader, query: &LookUpAddress) -> Result<Answer, QueryError> {
    Ok(find(reader, &query.address)?.map_or_else(|| missing(Missing::Address), Answer::Address))
}
