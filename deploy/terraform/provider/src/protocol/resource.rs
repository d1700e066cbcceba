//! What a provider consists of. `C` is its way to whatever it provides.

use std::time::Duration;

use async_trait::async_trait;

use super::diagnostic::Diagnostic;
use super::schema::Schema;
use super::value::Object;

/// A result, or what people are told.
pub type Done<T> = Result<T, Diagnostic>;

/// How long a change may take unless the resource or the configuration says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// A provider.
pub trait Provider: Send + Sync + 'static {
    /// Its way to whatever it provides.
    type Connection: Send + Sync + 'static;

    /// Before the names of its resources and data sources, without the underscore between them.
    fn name(&self) -> &'static str;

    /// Its configuration.
    fn schema(&self) -> Schema;

    /// From a configuration that may not be wholly known yet: nothing is connected before the first use.
    ///
    /// # Errors
    /// When the configuration is none.
    fn configure(&self, config: &Object) -> Done<Self::Connection>;

    /// What it keeps as it is configured.
    fn resources(&self) -> &[Box<dyn Resource<Self::Connection>>];

    /// What it can tell.
    fn data_sources(&self) -> &[Box<dyn DataSource<Self::Connection>>];
}

/// Something that is kept as it is configured.
///
/// Invariant: each change may be done again. Whoever was interrupted begins anew and finds what is done already.
#[async_trait]
pub trait Resource<C>: Send + Sync {
    /// Without the provider's name.
    fn name(&self) -> &'static str;

    /// Its attributes.
    fn schema(&self) -> Schema;

    /// An example of what `terraform import` is given, and what that is: for the documentation.
    fn import_id(&self) -> (&'static str, &'static str);

    /// What can be said of a configuration by itself; values may be unknown.
    fn check(&self, _: &Object) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// What its own rules say of a planned state, beyond the schema's: what the cluster will come to.
    fn plan(&self, _prior: Option<&Object>, _planned: &mut Object) {}

    /// What can be said of a change before it is applied.
    fn check_change(&self, _prior: &Object, _planned: &Object) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// As the provider has it now; `None`: it is gone. What only the configuration knows stays as it is in `state`.
    ///
    /// # Errors
    /// When it cannot be found out.
    async fn read(&self, connection: &C, state: Object) -> Done<Option<Object>>;

    /// Makes it, or takes over what is there already.
    ///
    /// # Errors
    /// When it was not done.
    async fn create(&self, connection: &C, planned: &Object) -> Done<()>;

    /// Whether something that a failed [`Self::create`] has made is to be kept in the state, as tainted. What takes over again what it finds
    /// need not be.
    fn keeps_what_failed(&self) -> bool {
        false
    }

    /// Changes it.
    ///
    /// # Errors
    /// When it was not done.
    async fn update(&self, connection: &C, prior: &Object, planned: &Object) -> Done<()>;

    /// Removes it. What is told is beside the point.
    ///
    /// # Errors
    /// When it was not done.
    async fn delete(&self, connection: &C, prior: &Object) -> Done<Vec<Diagnostic>>;

    /// By which one that is there is read: what [`Self::read`] needs.
    ///
    /// # Errors
    /// When the id is none.
    fn import(&self, id: &str) -> Done<Object>;

    /// How long a change may take, unless the attribute `timeouts` says otherwise.
    fn timeout(&self) -> Duration {
        TIMEOUT_DEFAULT
    }
}

/// Something that can be told.
#[async_trait]
pub trait DataSource<C>: Send + Sync {
    /// Without the provider's name.
    fn name(&self) -> &'static str;

    /// Its attributes.
    fn schema(&self) -> Schema;

    /// As it is now.
    ///
    /// # Errors
    /// When it cannot be found out.
    async fn read(&self, connection: &C, config: &Object) -> Done<Object>;
}
