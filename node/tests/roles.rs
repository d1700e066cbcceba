//! Who may call what.

#![allow(missing_docs, unreachable_pub)] // shared between test files; nobody depends on a test
#![allow(dead_code)] // each test file uses a part of the support

mod support;

use std::sync::Arc;

use postrider_api::identity::Role;
use postrider_api::pb::admin_service_client::AdminServiceClient;
use postrider_api::pb::shard_service_client::ShardServiceClient;
use postrider_api::pb::{self, command::Op, fault::Fault};
use postrider_api::tls::TlsIdentity;
use postrider_node::NodeTimings;
use postrider_raft::wire::{ClientFrame, Opening, Purpose, ServerFrame, client_frame, server_frame};
use prost::Message as _;
use support::authority::Authority;
use support::{Cluster, MAILBOX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::CipherSuite;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};

fn channel(cluster: &Cluster, identity: &TlsIdentity) -> Channel {
    identity.endpoint(&cluster.address(1)).unwrap().connect_lazy()
}

fn code<T>(result: Result<T, Status>) -> Code {
    result.err().map_or(Code::Ok, |status| status.code())
}

/// What a role gets from every method there is.
async fn codes(cluster: &Cluster, role: Role) -> Vec<(&'static str, Code)> {
    let channel = channel(cluster, &cluster.identity(role));
    let mut shards = ShardServiceClient::new(channel.clone());
    let mut admin = AdminServiceClient::new(channel);
    let shard = MAILBOX.0;
    let replica = pb::OpenReplicaRequest { shard, kind: pb::ShardKind::Unspecified.into(), ..Default::default() };
    let group = pb::CreateGroupRequest { shard, kind: pb::ShardKind::Unspecified.into(), ..Default::default() };
    vec![
        ("propose", code(shards.propose(pb::ProposeRequest { shard, ..Default::default() }).await)),
        ("query", code(shards.query(pb::QueryRequest { shard, ..Default::default() }).await)),
        ("watch", code(shards.watch(pb::WatchRequest { shard, ..Default::default() }).await)),
        ("watch_map", code(shards.watch_map(pb::WatchMapRequest::default()).await)),
        ("lease_queue", code(shards.lease_queue(pb::LeaseRequest { shard, ..Default::default() }).await)),
        ("settle_queue", code(shards.settle_queue(pb::SettleRequest { shard, ..Default::default() }).await)),
        ("status", code(admin.status(pb::StatusRequest::default()).await)),
        ("digest", code(admin.digest(pb::DigestRequest { shard }).await)),
        ("verify", code(admin.verify(pb::VerifyRequest { shard }).await)),
        ("transfer", code(admin.transfer(pb::TransferRequest { shard, to: 9 }).await)),
        ("open_replica", code(admin.open_replica(replica).await)),
        ("create_group", code(admin.create_group(group).await)),
        ("remove_replica", code(admin.remove_replica(replica).await)),
        ("vacuum", code(admin.vacuum(pb::VacuumRequest {}).await)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_asks_for_its_role() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, NodeTimings::default()));
    cluster.bootstrap().await;
    let shards = ["propose", "query", "watch", "watch_map"];
    let queue = ["lease_queue", "settle_queue"];
    for (role, shards_allowed, queue_allowed, admin_allowed) in [
        (Role::Frontend, true, true, false),
        (Role::Worker, true, true, false),
        (Role::Ctl, true, false, true),
        (Role::Node, true, false, true),
    ] {
        for (method, code) in codes(&cluster, role).await {
            let allowed = match method {
                method if shards.contains(&method) => shards_allowed,
                method if queue.contains(&method) => queue_allowed,
                _ => admin_allowed,
            };
            let expected = if allowed { Code::Ok } else { Code::PermissionDenied };
            assert_eq!(code, expected, "{role} calls {method}");
        }
    }
    // A name server gets the shard map, by stream or by question, and nothing else.
    for (method, code) in codes(&cluster, Role::Dns).await {
        let expected = if ["query", "watch_map"].contains(&method) { Code::Ok } else { Code::PermissionDenied };
        assert_eq!(code, expected, "a name server calls {method}");
    }
    let mut shards = ShardServiceClient::new(channel(&cluster, &cluster.identity(Role::Dns)));
    for (query, expected) in [
        (pb::query::Query::GetShardMap(Default::default()), Code::Ok),
        (pb::query::Query::FindMessageId(Default::default()), Code::PermissionDenied),
        (pb::query::Query::ListAudit(Default::default()), Code::PermissionDenied),
    ] {
        let query = Some(pb::Query { query: Some(query) });
        let request = pb::QueryRequest { shard: 1, mode: pb::ReadMode::Stale.into(), query, ..Default::default() };
        assert_eq!(code(shards.query(request).await), expected);
    }
}

/// Connects as a peer that is of that role, says that it means node `to` and asks whether it is there. Returns the first frame that comes back.
async fn knock(cluster: &Cluster, role: Role, to: u64) -> Option<server_frame::Body> {
    let mut config = cluster.identity(role).client_config().unwrap();
    config.alpn_protocols = vec![postrider_raft::transport::ALPN.to_vec()];
    let stream = TcpStream::connect(cluster.address(1)).await.unwrap();
    let name = postrider_api::identity::NODE_TLS_NAME.try_into().unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let suite = stream.get_ref().1.negotiated_cipher_suite().map(|chosen| chosen.suite());
    assert_eq!(suite, Some(CipherSuite::TLS13_AES_128_GCM_SHA256));
    let opening = Opening { from: 2, to, purpose: Purpose::Exchange.into(), ..Default::default() };
    for body in [Some(client_frame::Body::Opening(opening)), None] {
        let frame = ClientFrame { body }.encode_to_vec();
        stream.write_all(&[&(frame.len() as u32).to_be_bytes(), &frame[..]].concat()).await.unwrap();
    }
    let mut answer = vec![0; stream.read_u32().await.unwrap() as usize];
    stream.read_exact(&mut answer).await.unwrap();
    ServerFrame::decode(&answer[..]).unwrap().body
}

#[tokio::test(flavor = "multi_thread")]
async fn consensus_is_for_nodes_that_mean_this_one() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(1, NodeTimings::default()));
    for role in [Role::Frontend, Role::Worker, Role::Ctl] {
        let Some(server_frame::Body::Refused(reason)) = knock(&cluster, role, 1).await else { panic!("{role}") };
        assert!(reason.contains(role.name()), "{reason}");
    }
    assert_eq!(knock(&cluster, Role::Node, 1).await, None, "it is there");
    let refused = server_frame::Body::Refused("this is another node".to_owned());
    assert_eq!(knock(&cluster, Role::Node, 7).await, Some(refused));
}

/// Who may propose what. A command that gets through may be refused by the shard; that is another matter.
fn proposals() -> Vec<(Op, &'static [Role])> {
    let (people, mail): (&[Role], &[Role]) = (&[Role::Frontend], &[Role::Frontend, Role::Worker]);
    let (operator, nodes, nobody): (&[Role], &[Role], &[Role]) = (&[Role::Ctl], &[Role::Node], &[]);
    let (owners, verified): (&[Role], _) = (&[Role::Frontend, Role::Ctl], bytes::Bytes::from_static(&[7; 32]));
    let both: &[Role] = &[Role::Ctl, Role::Node];
    vec![
        (Op::CreateAccount(Default::default()), people),
        (Op::UpdateProfile(Default::default()), people),
        (Op::OpenSession(Default::default()), people),
        (Op::CloseSession(Default::default()), people),
        (Op::CreateFolder(Default::default()), people),
        (Op::UpdateFolder(Default::default()), people),
        (Op::DeleteFolder(Default::default()), people),
        (Op::CreateLabel(Default::default()), people),
        (Op::UpdateLabel(Default::default()), people),
        (Op::DeleteLabel(Default::default()), people),
        (Op::UpdateMessages(Default::default()), people),
        (Op::Send(Default::default()), people),
        (Op::CreateAppPassword(Default::default()), people),
        (Op::UseAppPassword(Default::default()), people),
        (Op::BeginSecondFactor(pb::BeginSecondFactor { verified: verified.clone(), ..Default::default() }), people),
        (Op::ConfirmSecondFactor(Default::default()), people),
        (
            Op::ReplaceRecoveryCodes(pb::ReplaceRecoveryCodes { verified: verified.clone(), ..Default::default() }),
            people,
        ),
        (Op::RemoveSecondFactor(pb::RemoveSecondFactor { verified: verified.clone(), ..Default::default() }), owners),
        (Op::RemoveSecondFactor(Default::default()), operator),
        (Op::UseSession(Default::default()), people),
        (Op::SaveDraft(Default::default()), people),
        (Op::RecordFeedback(Default::default()), people),
        (Op::Suppress(Default::default()), owners),
        (Op::Unsuppress(Default::default()), owners),
        (Op::DeleteAppPassword(Default::default()), owners),
        (Op::ReserveAddress(Default::default()), people),
        (Op::ActivateAddress(Default::default()), people),
        (Op::ReleaseAddress(Default::default()), people),
        (Op::Accept(Default::default()), &[Role::Frontend, Role::Worker, Role::Ctl]),
        (Op::ManageQueue(Default::default()), operator),
        (Op::Deliver(Default::default()), mail),
        (Op::Forget(Default::default()), mail),
        (Op::Settle(Default::default()), nobody),
        (Op::RegisterRegion(Default::default()), operator),
        (Op::RegisterNode(Default::default()), both),
        (Op::PlaceShard(Default::default()), operator),
        (Op::AddDomain(Default::default()), operator),
        (Op::SetVersion(Default::default()), operator),
        (Op::ReportBuild(Default::default()), nodes),
        (Op::RecordVersion(Default::default()), nodes),
        (Op::RaiseVersion(Default::default()), &[]),
        (Op::ChangePassword(pb::ChangePassword { verified: verified.clone(), ..Default::default() }), owners),
        (Op::DeleteAccount(pb::DeleteAccount { verified, ..Default::default() }), owners),
        (Op::EndSession(Default::default()), owners),
        // Without the owner's password.
        (Op::ChangePassword(Default::default()), operator),
        (Op::DeleteAccount(Default::default()), operator),
        (Op::SuspendAccount(Default::default()), operator),
        (Op::SetCategory(Default::default()), operator),
        (Op::ResumeAccount(Default::default()), operator),
        (Op::CloseAddress(Default::default()), &[Role::Frontend, Role::Ctl, Role::Node]),
        (Op::DrainAccount(Default::default()), nodes),
        (Op::FinishDeletion(Default::default()), nodes),
        (Op::DropRecipient(Default::default()), nodes),
        (Op::RetireAddress(Default::default()), nodes),
        (Op::RecordAudit(Default::default()), &[Role::Ctl, Role::Frontend, Role::Node]),
        (Op::AddDkimKey(Default::default()), &[Role::Ctl, Role::Frontend]),
        (Op::RetireDkimKey(Default::default()), &[Role::Ctl, Role::Frontend]),
        (Op::RemoveDkimKey(Default::default()), &[Role::Ctl, Role::Frontend]),
        (Op::SuppressForDomain(Default::default()), &[Role::Ctl, Role::Frontend]),
        (Op::UnsuppressForDomain(Default::default()), &[Role::Ctl, Role::Frontend]),
        (Op::CancelSend(Default::default()), &[Role::Frontend]),
        (Op::SetReplicas(Default::default()), both),
        (Op::CancelOperation(Default::default()), both),
        (Op::SetHome(Default::default()), both),
        (Op::Balance(Default::default()), operator),
        (Op::SetPolicy(Default::default()), operator),
        (Op::RemovePolicy(Default::default()), operator),
        (Op::SetShardPolicy(Default::default()), operator),
        (Op::SetDomainPolicy(Default::default()), operator),
        (Op::WantCertificate(Default::default()), operator),
        (Op::ForgetCertificate(Default::default()), operator),
        (Op::ClaimOrders(Default::default()), people),
        (Op::RecordOrder(Default::default()), people),
        (Op::RecordCertificate(Default::default()), people),
        (Op::RecordLiveness(Default::default()), nodes),
        (Op::GiveUpNode(Default::default()), nodes),
        (Op::DrainNode(Default::default()), operator),
        (Op::ActivateNode(Default::default()), operator),
        (Op::RemoveNode(Default::default()), operator),
        (Op::RemoveRegion(Default::default()), operator),
        (Op::UpdateRegion(Default::default()), operator),
        (Op::RemoveDomain(Default::default()), operator),
        (Op::RecordStep(Default::default()), nodes),
        (Op::FinishOperation(Default::default()), nodes),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_asks_for_its_role() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, NodeTimings::default()));
    cluster.bootstrap().await;
    for role in [Role::Frontend, Role::Worker, Role::Ctl, Role::Node] {
        let mut service = cluster.shard_service(1, role);
        for (op, allowed) in proposals() {
            let command = pb::Command { op: Some(op.clone()), ..Default::default() }.encode_to_vec().into();
            let request = pb::ProposeRequest { shard: MAILBOX.0, command, ..Default::default() };
            let expected = if allowed.contains(&role) { Code::Ok } else { Code::PermissionDenied };
            assert_eq!(code(service.propose(request).await), expected, "{role} proposes {op:?}");
        }
    }
}

/// What no build knows would stop every replica that applies it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_says_nothing_does_not_come_into_the_log() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(3, NodeTimings::default()));
    cluster.bootstrap().await;
    let leader = cluster.leader(MAILBOX).await;
    let request = pb::ProposeRequest { shard: MAILBOX.0, ..Default::default() };
    let reply = cluster.shard_service(leader, Role::Frontend).propose(request).await.unwrap().into_inner();
    let Some(pb::propose_reply::Result::Fault(fault)) = reply.result else { panic!("{reply:?}") };
    assert!(matches!(fault.fault, Some(Fault::Malformed(_))), "{fault:?}");
    cluster.agree(MAILBOX, &[1, 2, 3]).await;
}

async fn status_through(channel: Channel) -> Result<pb::StatusReply, Status> {
    let mut admin = AdminServiceClient::new(channel);
    admin.status(pb::StatusRequest::default()).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_our_certificate_is_refused() {
    let cluster = tokio::task::block_in_place(|| Cluster::start(1, NodeTimings::default()));
    let ctl = cluster.identity(Role::Ctl);
    let through =
        |identity: &TlsIdentity| status_through(identity.endpoint(&cluster.address(1)).unwrap().connect_lazy());
    assert!(through(&ctl).await.is_ok());

    let without = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ctl.ca_pem))
        .domain_name(postrider_api::identity::NODE_TLS_NAME);
    let endpoint = Endpoint::from_shared(format!("https://{}", cluster.address(1))).unwrap();
    let endpoint = endpoint.tls_config(without).unwrap();
    assert!(status_through(endpoint.connect_lazy()).await.is_err(), "no certificate");

    let stranger = Authority::new().issue(Role::Ctl).with_authority(ctl.ca_pem.clone());
    assert!(through(&stranger).await.is_err(), "another authority");

    let plain = Endpoint::from_shared(format!("http://{}", cluster.address(1))).unwrap();
    assert!(status_through(plain.connect_lazy()).await.is_err(), "no TLS");
}
