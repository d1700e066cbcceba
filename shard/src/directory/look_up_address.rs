//! Who has an address. A reserved one is answered too: its status says that it takes no mail yet. One in quarantine nobody has.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{AddressStatus, LookUpAddress, Missing};

use crate::directory::find;
use crate::query::{QueryError, missing};
use crate::store::Reader;

pub(crate) fn answer(reader: &impl Reader, query: &LookUpAddress) -> Result<Answer, QueryError> {
    let held = find(reader, &query.address)?.filter(|record| record.status() != AddressStatus::Quarantined);
    Ok(held.map_or_else(|| missing(Missing::Address), Answer::Address))
}
