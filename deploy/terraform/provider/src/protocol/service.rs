//! The provider's service: requests decoded, the right resource asked, what it says encoded. Waiting ends with the time or with a stop.
//!
//! Invariant: what an apply returns agrees with what was planned, so that a plan behind it shows no difference but a real one.

use std::future::Future;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::diagnostic::{Diagnostic, path};
use super::pb::provider as pb;
use super::pb::provider::provider_server::{Provider as PbProvider, ProviderServer};
use super::resource::{DataSource, Done, Provider, Resource};
use super::schema::Schema;
use super::value::{Object, Value};
use super::{json, msgpack, planning, timeout};

/// How long reading may take: a read that is not answered for so long is not going to be.
const READ_MAX: Duration = Duration::from_secs(120);

/// A provider as a service.
pub(super) struct Service<P: Provider> {
    provider: P,
    /// Cancelled when Terraform asks for a stop.
    stop: CancellationToken,
    connection: RwLock<Option<Arc<P::Connection>>>,
}

/// With the protocol's limits.
pub(super) fn pb_server<P: Provider>(service: Service<P>, bytes_max: usize) -> ProviderServer<Service<P>> {
    ProviderServer::new(service).max_decoding_message_size(bytes_max).max_encoding_message_size(bytes_max)
}

type Resources<P> = dyn Resource<<P as Provider>::Connection>;
type DataSources<P> = dyn DataSource<<P as Provider>::Connection>;

impl<P: Provider> Service<P> {
    pub(super) fn new(provider: P, stop: CancellationToken) -> Self {
        Self { provider, stop, connection: RwLock::new(None) }
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}_{name}", self.provider.name())
    }

    fn resource(&self, name: &str) -> Done<&Resources<P>> {
        let mut all = self.provider.resources().iter();
        let found = all.find(|resource| self.full_name(resource.name()) == name);
        found.map(|resource| &**resource).ok_or_else(|| unknown("resource", name))
    }

    fn data_source(&self, name: &str) -> Done<&DataSources<P>> {
        let mut all = self.provider.data_sources().iter();
        let found = all.find(|source| self.full_name(source.name()) == name);
        found.map(|source| &**source).ok_or_else(|| unknown("data source", name))
    }

    fn connection(&self) -> Done<Arc<P::Connection>> {
        let known = self.connection.read().map(|connection| connection.clone()).unwrap_or_default();
        known.ok_or_else(|| {
            Diagnostic::error("The provider is not configured", "Terraform has not configured the provider.")
        })
    }

    /// What the work comes to, unless the time is up or Terraform asks for a stop before.
    async fn within<T>(&self, limit: Duration, what: &str, work: impl Future<Output = Done<T>>) -> Done<T> {
        const GOES_ON: &str = "What the cluster has recorded goes on by itself (`postrider ctl operations` shows it); the next apply takes it up.";
        tokio::select! {
            done = work => done,
            () = self.stop.cancelled() => Err(Diagnostic::error(format!("{what}: stopped waiting"), GOES_ON)),
            () = tokio::time::sleep(limit) => {
                let detail = format!("It took more than {} s. {GOES_ON} Where it needs more time, say so in `timeouts`.", limit.as_secs());
                Err(Diagnostic::error(format!("{what}: no end in time"), detail))
            }
        }
    }

    async fn read_resource(&self, request: pb::read_resource::Request) -> Done<Value> {
        let resource = self.resource(&request.type_name)?;
        let Some(state) = object(request.current_state)? else { return Ok(Value::Null) };
        let connection = self.connection()?;
        let schema = resource.schema();
        let work = resource.read(&connection, schema.conform(state));
        let found = self.within(READ_MAX, &request.type_name, work).await?;
        Ok(found.map_or(Value::Null, |found| Value::Object(schema.conform(found))))
    }

    fn plan(&self, request: pb::plan_resource_change::Request) -> Done<pb::plan_resource_change::Response> {
        let resource = self.resource(&request.type_name)?;
        let schema = resource.schema();
        let (prior, config) = (object(request.prior_state)?, object(request.config)?.unwrap_or_default());
        let Some(proposed) = object(request.proposed_new_state)? else {
            return Ok(pb::plan_resource_change::Response {
                planned_state: Some(dynamic(&Value::Null)),
                ..Default::default()
            });
        };
        let mut planned = planning::plan(&schema, prior.as_ref(), proposed, &config);
        resource.plan(prior.as_ref(), &mut planned.state);
        // Of another thing nothing can be said by what this one was.
        let diagnostics = match &prior {
            Some(prior) if planned.replaces.is_empty() => resource.check_change(prior, &planned.state),
            _ => Vec::new(),
        };
        Ok(pb::plan_resource_change::Response {
            planned_state: Some(dynamic(&Value::Object(planned.state))),
            requires_replace: planned.replaces.into_iter().map(path).collect(),
            planned_private: bytes::Bytes::new(),
            diagnostics: told(diagnostics),
        })
    }

    /// The state afterwards, and what is to be told.
    async fn apply(&self, request: pb::apply_resource_change::Request) -> Done<(Value, Vec<Diagnostic>)> {
        let name = &request.type_name;
        let resource = self.resource(name)?;
        let connection = self.connection()?;
        match (object(request.prior_state)?, object(request.planned_state)?) {
            (None, None) => Ok((Value::Null, Vec::new())),
            (None, Some(planned)) => self.create(resource, name, &connection, &planned).await,
            (Some(prior), Some(planned)) => self.update(resource, name, &connection, prior, &planned).await,
            (Some(prior), None) => {
                let limit = timeout::of(&prior, "delete").unwrap_or_else(|| resource.timeout());
                match self.within(limit, name, resource.delete(&connection, &prior)).await {
                    Ok(beside) => Ok((Value::Null, beside)),
                    Err(diagnostic) => Ok((Value::Object(prior), vec![diagnostic])),
                }
            }
        }
    }

    async fn create(
        &self,
        resource: &Resources<P>,
        name: &str,
        connection: &P::Connection,
        planned: &Object,
    ) -> Done<(Value, Vec<Diagnostic>)> {
        let limit = timeout::of(planned, "create").unwrap_or_else(|| resource.timeout());
        let made = self.within(limit, name, resource.create(connection, planned)).await;
        match made {
            Ok(()) => Ok((self.settle(resource, name, connection, planned).await?, Vec::new())),
            Err(diagnostic) if resource.keeps_what_failed() => {
                let read = self.within(READ_MAX, name, resource.read(connection, known(planned))).await;
                let kept = read.ok().flatten().map(|found| planning::settled(&unplanned(&found, planned), &found));
                Ok((kept.map_or(Value::Null, |kept| Value::Object(resource.schema().conform(kept))), vec![diagnostic]))
            }
            Err(diagnostic) => Ok((Value::Null, vec![diagnostic])),
        }
    }

    async fn update(
        &self,
        resource: &Resources<P>,
        name: &str,
        connection: &P::Connection,
        prior: Object,
        planned: &Object,
    ) -> Done<(Value, Vec<Diagnostic>)> {
        let limit = timeout::of(planned, "update").unwrap_or_else(|| resource.timeout());
        let changed = self.within(limit, name, resource.update(connection, &prior, planned)).await;
        let failed = match changed {
            Ok(()) => match self.settle(resource, name, connection, planned).await {
                Ok(state) => return Ok((state, Vec::new())),
                Err(diagnostic) => diagnostic,
            },
            Err(diagnostic) => diagnostic,
        };
        // Whatever has changed of it: the next plan starts from what is there.
        let now = self.within(READ_MAX, name, resource.read(connection, prior.clone())).await;
        let state = now.ok().flatten().map_or(prior, |found| resource.schema().conform(found));
        Ok((Value::Object(state), vec![failed]))
    }

    /// What was planned, with what the cluster knows.
    async fn settle(
        &self,
        resource: &Resources<P>,
        name: &str,
        connection: &P::Connection,
        planned: &Object,
    ) -> Done<Value> {
        if planned.values().all(Value::is_known) {
            return Ok(Value::Object(planned.clone()));
        }
        let found = self.within(READ_MAX, name, resource.read(connection, known(planned))).await?;
        let gone = || {
            Diagnostic::error(
                format!("{name}: it is not there"),
                "It was made, and is gone again: somebody else has removed it. Apply again.",
            )
        };
        let found = found.ok_or_else(gone)?;
        Ok(Value::Object(resource.schema().conform(planning::settled(planned, &found))))
    }

    fn import(&self, request: pb::import_resource_state::Request) -> Done<Value> {
        let resource = self.resource(&request.type_name)?;
        Ok(Value::Object(resource.schema().with_defaults(resource.import(&request.id)?)))
    }

    async fn read_data(&self, request: pb::read_data_source::Request) -> Done<Value> {
        let source = self.data_source(&request.type_name)?;
        let schema = source.schema();
        let config = schema.with_defaults(object(request.config)?.unwrap_or_default());
        let connection = self.connection()?;
        let found = self.within(READ_MAX, &request.type_name, source.read(&connection, &config)).await?;
        Ok(Value::Object(schema.conform(found)))
    }
}

/// What is known of a plan; what is not is null.
fn known(planned: &Object) -> Object {
    let of = |value: &Value| if value.is_known() { value.clone() } else { Value::Null };
    planned.iter().map(|(name, value)| (name.clone(), of(value))).collect()
}

/// As found, so that the next plan shows what is missing still; what only the configuration knows as planned.
fn unplanned(found: &Object, planned: &Object) -> Object {
    let of = |(name, value): (&String, &Value)| {
        let value = if value.is_null() { planned.get(name).unwrap_or(value) } else { value };
        (name.clone(), value.clone())
    };
    found.iter().map(of).collect()
}

fn unknown(kind: &str, name: &str) -> Diagnostic {
    Diagnostic::error(
        format!("There is no {kind} {name}"),
        "This provider has none of the name: another version of it may.",
    )
}

/// An object, or null.
fn object(told: Option<pb::DynamicValue>) -> Done<Option<Object>> {
    match value(told)? {
        Value::Null => Ok(None),
        Value::Object(object) => Ok(Some(object)),
        _ => Err(not_understood("an object is wanted")),
    }
}

fn value(told: Option<pb::DynamicValue>) -> Done<Value> {
    let Some(told) = told else { return Ok(Value::Null) };
    if !told.msgpack.is_empty() {
        return msgpack::decode(&told.msgpack).map_err(|error| not_understood(&error.to_string()));
    }
    if told.json.is_empty() {
        return Ok(Value::Null);
    }
    let parsed = serde_json::from_slice(&told.json).map_err(|error| not_understood(&error.to_string()))?;
    Ok(json::value(&parsed))
}

fn not_understood(why: &str) -> Diagnostic {
    Diagnostic::error(
        "A value of Terraform's is not understood",
        format!("{why}. This is a mistake of the provider: report it."),
    )
}

fn dynamic(value: &Value) -> pb::DynamicValue {
    pb::DynamicValue { msgpack: msgpack::encode(value).into(), json: bytes::Bytes::new() }
}

fn told(diagnostics: impl IntoIterator<Item = Diagnostic>) -> Vec<pb::Diagnostic> {
    diagnostics.into_iter().map(pb::Diagnostic::from).collect()
}

/// A value, or none with what is wrong.
fn split(done: Done<Value>) -> (Option<pb::DynamicValue>, Vec<pb::Diagnostic>) {
    match done {
        Ok(value) => (Some(dynamic(&value)), Vec::new()),
        Err(diagnostic) => (None, told([diagnostic])),
    }
}

fn capabilities() -> pb::ServerCapabilities {
    pb::ServerCapabilities { get_provider_schema_optional: true, ..pb::ServerCapabilities::default() }
}

fn upgraded(schema: &Schema, state: Option<pb::RawState>) -> Done<Value> {
    let state = state.unwrap_or_default();
    let parsed =
        serde_json::from_slice(&state.json).map_err(|error| not_understood(&format!("the stored state: {error}")))?;
    match json::value(&parsed) {
        Value::Object(object) => Ok(Value::Object(schema.conform(object))),
        _ => Err(not_understood("the stored state is no object")),
    }
}

#[tonic::async_trait]
impl<P: Provider> PbProvider for Service<P> {
    async fn get_metadata(
        &self,
        _: Request<pb::get_metadata::Request>,
    ) -> Result<Response<pb::get_metadata::Response>, Status> {
        let name = |name: &str| pb::get_metadata::TypeName { type_name: self.full_name(name) };
        Ok(Response::new(pb::get_metadata::Response {
            server_capabilities: Some(capabilities()),
            diagnostics: Vec::new(),
            data_sources: self.provider.data_sources().iter().map(|source| name(source.name())).collect(),
            resources: self.provider.resources().iter().map(|resource| name(resource.name())).collect(),
        }))
    }

    async fn get_provider_schema(
        &self,
        _: Request<pb::get_provider_schema::Request>,
    ) -> Result<Response<pb::get_provider_schema::Response>, Status> {
        let resources = self.provider.resources().iter();
        let sources = self.provider.data_sources().iter();
        Ok(Response::new(pb::get_provider_schema::Response {
            provider: Some(self.provider.schema().to_pb()),
            resource_schemas: resources.map(|one| (self.full_name(one.name()), one.schema().to_pb())).collect(),
            data_source_schemas: sources.map(|one| (self.full_name(one.name()), one.schema().to_pb())).collect(),
            server_capabilities: Some(capabilities()),
            ..Default::default()
        }))
    }

    async fn validate_provider_config(
        &self,
        _: Request<pb::validate_provider_config::Request>,
    ) -> Result<Response<pb::validate_provider_config::Response>, Status> {
        // Said when it is configured, with what the environment adds.
        Ok(Response::new(pb::validate_provider_config::Response::default()))
    }

    async fn validate_resource_config(
        &self,
        request: Request<pb::validate_resource_config::Request>,
    ) -> Result<Response<pb::validate_resource_config::Response>, Status> {
        let request = request.into_inner();
        let checked = self.resource(&request.type_name).and_then(|resource| {
            let config = object(request.config)?.unwrap_or_default();
            Ok([resource.check(&config), timeout::check(&config)].concat())
        });
        let diagnostics = told(checked.unwrap_or_else(|diagnostic| vec![diagnostic]));
        Ok(Response::new(pb::validate_resource_config::Response { diagnostics }))
    }

    async fn validate_data_resource_config(
        &self,
        _: Request<pb::validate_data_resource_config::Request>,
    ) -> Result<Response<pb::validate_data_resource_config::Response>, Status> {
        Ok(Response::new(pb::validate_data_resource_config::Response::default()))
    }

    async fn upgrade_resource_state(
        &self,
        request: Request<pb::upgrade_resource_state::Request>,
    ) -> Result<Response<pb::upgrade_resource_state::Response>, Status> {
        let request = request.into_inner();
        let resource = self.resource(&request.type_name);
        let done = resource.and_then(|resource| upgraded(&resource.schema(), request.raw_state));
        let (upgraded_state, diagnostics) = split(done);
        Ok(Response::new(pb::upgrade_resource_state::Response { upgraded_state, diagnostics }))
    }

    async fn configure_provider(
        &self,
        request: Request<pb::configure_provider::Request>,
    ) -> Result<Response<pb::configure_provider::Response>, Status> {
        let request = request.into_inner();
        tracing::info!(terraform = %request.terraform_version, "configured");
        let configured = object(request.config).and_then(|config| {
            let schema = self.provider.schema();
            self.provider.configure(&schema.conform(config.unwrap_or_default()))
        });
        let diagnostics = match configured {
            Ok(connection) => {
                if let Ok(mut known) = self.connection.write() {
                    *known = Some(Arc::new(connection));
                }
                Vec::new()
            }
            Err(diagnostic) => told([diagnostic]),
        };
        Ok(Response::new(pb::configure_provider::Response { diagnostics }))
    }

    async fn read_resource(
        &self,
        request: Request<pb::read_resource::Request>,
    ) -> Result<Response<pb::read_resource::Response>, Status> {
        let request = request.into_inner();
        let private = request.private.clone();
        let (new_state, diagnostics) = split(Self::read_resource(self, request).await);
        Ok(Response::new(pb::read_resource::Response { new_state, diagnostics, private }))
    }

    async fn plan_resource_change(
        &self,
        request: Request<pb::plan_resource_change::Request>,
    ) -> Result<Response<pb::plan_resource_change::Response>, Status> {
        let planned = self.plan(request.into_inner());
        Ok(Response::new(planned.unwrap_or_else(|diagnostic| pb::plan_resource_change::Response {
            diagnostics: told([diagnostic]),
            ..Default::default()
        })))
    }

    async fn apply_resource_change(
        &self,
        request: Request<pb::apply_resource_change::Request>,
    ) -> Result<Response<pb::apply_resource_change::Response>, Status> {
        let request = request.into_inner();
        let before = request.prior_state.clone();
        let response = match self.apply(request).await {
            Ok((state, diagnostics)) => pb::apply_resource_change::Response {
                new_state: Some(dynamic(&state)),
                private: bytes::Bytes::new(),
                diagnostics: told(diagnostics),
            },
            // Nothing was done.
            Err(diagnostic) => pb::apply_resource_change::Response {
                new_state: before,
                private: bytes::Bytes::new(),
                diagnostics: told([diagnostic]),
            },
        };
        Ok(Response::new(response))
    }

    async fn import_resource_state(
        &self,
        request: Request<pb::import_resource_state::Request>,
    ) -> Result<Response<pb::import_resource_state::Response>, Status> {
        let request = request.into_inner();
        let type_name = request.type_name.clone();
        let (state, diagnostics) = split(self.import(request));
        let imported = state.map(|state| pb::import_resource_state::ImportedResource {
            type_name,
            state: Some(state),
            private: bytes::Bytes::new(),
        });
        let imported_resources = imported.into_iter().collect();
        Ok(Response::new(pb::import_resource_state::Response { imported_resources, diagnostics }))
    }

    async fn read_data_source(
        &self,
        request: Request<pb::read_data_source::Request>,
    ) -> Result<Response<pb::read_data_source::Response>, Status> {
        let (state, diagnostics) = split(self.read_data(request.into_inner()).await);
        Ok(Response::new(pb::read_data_source::Response { state, diagnostics }))
    }

    async fn stop_provider(
        &self,
        _: Request<pb::stop_provider::Request>,
    ) -> Result<Response<pb::stop_provider::Response>, Status> {
        tracing::info!("Terraform asks for a stop");
        self.stop.cancel();
        Ok(Response::new(pb::stop_provider::Response::default()))
    }
}

#[cfg(test)]
mod tests;
