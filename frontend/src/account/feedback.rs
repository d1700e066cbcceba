//! What administrators see of the mail of a domain's accounts, and change of it: what came back, and to whom they do not send. Each look and
//! each change stands in the audit log.

use bytes::Bytes;
use postrider_api::address::{Address, RemoteAddress, slot_of};
use postrider_api::audit;
use postrider_api::env;
use postrider_api::id::{RequestId, ShardId, UserId};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, ShardKind, SuppressionReason, answer, outcome, query};
use postrider_router::{ReadMode, RouteError};

use crate::account::{AccountError, Accounts, STEP_MAX, unexpected, unexpected_result};

/// Pages of shards that one question reads at most: where few lines are of the domain, the next question goes on.
const PAGES_MAX: usize = 16;

/// Where the next page of a domain's feedback begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedbackCursor {
    /// In this shard.
    pub shard: ShardId,
    /// Behind this row; `None`: with its first.
    pub after: Option<(UserId, u64)>,
}

impl Accounts {
    /// What came back of mail of the accounts of a domain, by shard and account, and where the next page begins.
    ///
    /// # Errors
    /// [`AccountError::DomainOutside`] where it is none of ours; [`AccountError::Route`].
    pub async fn feedback_of_domain(
        &self,
        domain: &str,
        from: Option<FeedbackCursor>,
        limit: usize,
    ) -> Result<(Vec<pb::FeedbackLine>, Option<FeedbackCursor>), AccountError> {
        let read = self.read_feedback(domain, from, limit);
        self.audited("feedback.list", vec![format!("domain {domain}")], read).await
    }

    async fn read_feedback(
        &self,
        domain: &str,
        from: Option<FeedbackCursor>,
        limit: usize,
    ) -> Result<(Vec<pb::FeedbackLine>, Option<FeedbackCursor>), AccountError> {
        let shards = self.mailbox_shards(domain)?;
        let begin = FeedbackCursor { shard: shards.first().copied().ok_or(AccountError::NoShard)?, after: None };
        let mut at = from.unwrap_or(begin);
        let mut lines = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.page(&at).await?;
            let last = page.lines.last().and_then(place_of);
            let of_domain = |line: &pb::FeedbackLine| line.sender.rsplit_once('@').is_some_and(|(_, of)| of == domain);
            for line in page.lines {
                if lines.len() == limit {
                    return Ok((lines, Some(at)));
                }
                at.after = place_of(&line);
                if of_domain(&line) {
                    lines.push(line);
                }
            }
            at = match (page.more, shards.iter().find(|shard| **shard > at.shard)) {
                (true, _) => FeedbackCursor { after: last, ..at },
                (false, Some(next)) => FeedbackCursor { shard: *next, after: None },
                (false, None) => return Ok((lines, None)),
            };
        }
        Ok((lines, Some(at)))
    }

    async fn page(&self, at: &FeedbackCursor) -> Result<pb::FeedbackPage, AccountError> {
        let after = at.after.map(|(user, sequence)| pb::FeedbackPlace { user_id: user.to_bytes(), sequence });
        let ask = query::Query::ListFeedback(pb::ListFeedback { after, ..pb::ListFeedback::default() });
        match self.cluster.query(at.shard, None, ask, ReadMode::Consistent, 0, STEP_MAX).await?.answer.answer {
            Some(answer::Answer::Feedback(page)) => Ok(page),
            _ => Err(unexpected_result("list feedback")),
        }
    }

    /// Those of the domain's zone, by number.
    fn mailbox_shards(&self, domain: &str) -> Result<Vec<ShardId>, AccountError> {
        let map = self.cluster.map();
        let record = map.domains.iter().find(|record| record.name == domain);
        let record = record.ok_or_else(|| AccountError::DomainOutside { domain: domain.to_owned() })?;
        let of_zone = map.shards.iter().filter(|shard| shard.kind() == ShardKind::Mailbox && shard.zone == record.zone);
        let mut shards: Vec<ShardId> = of_zone.map(|shard| ShardId(shard.id)).collect();
        shards.sort_unstable();
        Ok(shards)
    }

    /// To whom no account of a domain sends, behind an address or from the first.
    ///
    /// # Errors
    /// [`AccountError::DomainOutside`] where it is none of ours; [`AccountError::Route`].
    pub async fn suppressions_of_domain(
        &self,
        domain: &str,
        after: String,
        limit: u32,
    ) -> Result<pb::Suppressions, AccountError> {
        let shard = self.directory_of(domain).await?;
        let ask = pb::ListDomainSuppressions { domain: domain.to_owned(), limit, after };
        let read = async {
            let ask = query::Query::ListDomainSuppressions(ask);
            match self.cluster.query(shard, None, ask, ReadMode::Consistent, 0, STEP_MAX).await?.answer.answer {
                Some(answer::Answer::Suppressions(page)) => Ok(page),
                _ => Err(unexpected_result("list suppressions")),
            }
        };
        self.audited("suppression.list", vec![format!("domain {domain}")], read).await
    }

    /// Has no account of a domain send to an address any more.
    ///
    /// # Errors
    /// [`AccountError::DomainOutside`], [`AccountError::SuppressionsTooMany`], [`AccountError::Route`].
    pub async fn suppress_for_domain(
        &self,
        domain: &str,
        address: &RemoteAddress,
        detail: String,
    ) -> Result<(), AccountError> {
        let shard = self.directory_of(domain).await?;
        let (domain, address) = (domain.to_owned(), address.as_str().to_owned());
        let targets = vec![format!("domain {domain}")];
        let op = Op::SuppressForDomain(pb::SuppressForDomain { domain, address, detail, until_ms: 0 });
        self.audited("suppression.add", targets, self.change_suppressions(shard, op)).await
    }

    /// Lets the accounts of a domain send to an address again.
    ///
    /// # Errors
    /// [`AccountError::DomainOutside`], [`AccountError::Route`].
    pub async fn unsuppress_for_domain(&self, domain: &str, address: String) -> Result<(), AccountError> {
        let shard = self.directory_of(domain).await?;
        let targets = vec![format!("domain {domain}")];
        let op = Op::UnsuppressForDomain(pb::UnsuppressForDomain { domain: domain.to_owned(), address });
        self.audited("suppression.remove", targets, self.change_suppressions(shard, op)).await
    }

    /// The shard that has a domain's own list.
    async fn directory_of(&self, domain: &str) -> Result<ShardId, AccountError> {
        let zone = self.cluster.zone_of_domain(domain, STEP_MAX).await?;
        let zone = zone.ok_or_else(|| AccountError::DomainOutside { domain: domain.to_owned() })?;
        Ok(self.cluster.directory_shard(zone, slot_of(domain)).ok_or(RouteError::UnknownShard)?)
    }

    /// To whom an account does not send, behind an address or from the first.
    ///
    /// # Errors
    /// [`AccountError::NoAccount`] where nobody has the address; [`AccountError::Route`].
    pub async fn suppressions_of(
        &self,
        account: &Address,
        after: String,
        limit: u32,
    ) -> Result<pb::Suppressions, AccountError> {
        let (user, shard) = self.account_of(account).await?;
        let ask = pb::ListSuppressions { user_id: user.to_bytes(), limit, after };
        let read = async {
            let ask = query::Query::ListSuppressions(ask);
            match self.cluster.query(shard, None, ask, ReadMode::Consistent, 0, STEP_MAX).await?.answer.answer {
                Some(answer::Answer::Suppressions(page)) => Ok(page),
                _ => Err(unexpected_result("list suppressions")),
            }
        };
        self.audited("suppression.list", vec![audit::user(user), audit::address(account)], read).await
    }

    /// Has an account send to an address no more.
    ///
    /// # Errors
    /// [`AccountError::NoAccount`], [`AccountError::SuppressionsTooMany`], [`AccountError::Route`].
    pub async fn suppress(
        &self,
        account: &Address,
        address: &RemoteAddress,
        detail: String,
    ) -> Result<(), AccountError> {
        let (user, shard) = self.account_of(account).await?;
        let op = Op::Suppress(pb::Suppress {
            user_id: user.to_bytes(),
            address: address.as_str().to_owned(),
            reason: SuppressionReason::Manual.into(),
            detail,
            until_ms: 0,
        });
        let targets = vec![audit::user(user), audit::address(account)];
        self.audited("suppression.add", targets, self.change_suppressions(shard, op)).await
    }

    /// Lets an account send to an address again.
    ///
    /// # Errors
    /// [`AccountError::NoAccount`], [`AccountError::Route`].
    pub async fn unsuppress(&self, account: &Address, address: String) -> Result<(), AccountError> {
        let (user, shard) = self.account_of(account).await?;
        let op = Op::Unsuppress(pb::Unsuppress { user_id: user.to_bytes(), address });
        let targets = vec![audit::user(user), audit::address(account)];
        self.audited("suppression.remove", targets, self.change_suppressions(shard, op)).await
    }

    async fn change_suppressions(&self, shard: ShardId, op: Op) -> Result<(), AccountError> {
        let request = RequestId(env::random(&*self.entropy));
        match self.step(shard, None, request, Bytes::new(), op).await? {
            Ok(outcome::Result::Done(_)) => Ok(()),
            Ok(_) => Err(unexpected_result("change suppressions")),
            Err(refused) => Err(match refused.refusal() {
                pb::Refusal::UnknownUser => AccountError::NoAccount,
                pb::Refusal::SuppressionsTooMany => AccountError::SuppressionsTooMany,
                _ => unexpected("change suppressions", &refused),
            }),
        }
    }

    async fn account_of(&self, address: &Address) -> Result<(UserId, ShardId), AccountError> {
        let record = self.cluster.look_up(address, STEP_MAX).await?.ok_or(AccountError::NoAccount)?;
        let user = UserId::try_from(&record.user_id).map_err(|_| unexpected_result("look up address"))?;
        Ok((user, ShardId(record.shard)))
    }
}

fn place_of(line: &pb::FeedbackLine) -> Option<(UserId, u64)> {
    let user = UserId::try_from(&line.user_id).ok()?;
    Some((user, line.feedback.as_ref()?.sequence))
}
