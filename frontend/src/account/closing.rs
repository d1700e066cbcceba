//! The end of an account, asked for by its owner. What it has is removed by the shard's leader, by and by
//! (`node/src/deletion.rs`); from the answer on nobody logs in to it and no mail is taken for it.

use bytes::Bytes;
use postrider_api::address::{hash_of, slot_of};
use postrider_api::env;
use postrider_api::id::RequestId;
use postrider_api::pb;
use postrider_api::pb::Refusal;
use postrider_api::pb::command::Op;

use crate::account::owner::Owner;
use crate::account::{AccountError, Accounts, unexpected};

impl Accounts {
    /// Deletes the account. Nothing undoes it.
    ///
    /// # Errors
    /// See [`AccountError`]. Whoever got no answer and finds his session gone knows that it was carried out.
    pub async fn delete(&self, owner: &Owner, password: String) -> Result<(), AccountError> {
        let proven = self.prove(owner, password).await?;
        let delete = pb::DeleteAccount { user_id: owner.user.to_bytes(), verified: proven.verified };
        let request = RequestId(env::random(&*self.entropy));
        let session = Some(owner.proof.clone());
        match self.step(owner.shard, session, request, Bytes::new(), Op::DeleteAccount(delete)).await? {
            Ok(_) => {}
            Err(refused) if refused.refusal() == Refusal::PasswordChanged => return Err(AccountError::PasswordChanged),
            Err(refused) => return Err(unexpected("delete account", &refused)),
        }
        self.cluster.forget(owner.user);
        self.close_address(owner, &proven.address).await;
        Ok(())
    }

    /// So that mail is turned away at once. The shard's leader does it as well, a moment later, should this fail.
    async fn close_address(&self, owner: &Owner, address: &str) {
        let Some(directory) = self.cluster.directory_shard(owner.user.zone(), slot_of(address)) else { return };
        let request = RequestId(env::random(&*self.entropy));
        let close = pb::CloseAddress {
            address_hash: Bytes::copy_from_slice(&hash_of(address)),
            user_id: owner.user.to_bytes(),
        };
        match self.step(directory, None, request, Bytes::new(), Op::CloseAddress(close)).await {
            Ok(Ok(_)) => {}
            Ok(Err(refused)) => {
                tracing::warn!(user = %owner.user, refusal = ?refused.refusal(), "an address was not closed at once");
            }
            Err(error) => tracing::info!(user = %owner.user, %error, "an address was not closed at once"),
        }
    }
}
