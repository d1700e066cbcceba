//! Where a user is: the row of one of his addresses, an active one if there is any.

use postrider_api::id::UserId;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{AddressRecord, AddressStatus, LocateUser, Missing};

use crate::key::{Key, KeyRange, Table};
use crate::query::{QueryError, id, missing};
use crate::store::{Direction, Reader};
use crate::{Broken, row};

/// Addresses of one user that are looked at.
const ADDRESSES_MAX: usize = 100;

pub(crate) fn answer(reader: &impl Reader, query: &LocateUser) -> Result<Answer, QueryError> {
    let user: UserId = id(&query.user_id, "user_id")?;
    let mut reserved = None;
    for found in reader.scan(&KeyRange::user(Table::UserAddresses, user), Direction::Forward).take(ADDRESSES_MAX) {
        let Key::UserAddress(_, hash) = Key::decode(found?.0.as_ref()).map_err(Broken::from)? else { continue };
        let record: AddressRecord = row::need(reader, Key::Address(hash))?;
        if record.status() == AddressStatus::Active {
            return Ok(Answer::Address(record));
        }
        reserved.get_or_insert(record);
    }
    Ok(reserved.map_or_else(|| missing(Missing::User), Answer::Address))
}
