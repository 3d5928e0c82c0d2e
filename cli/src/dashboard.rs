//! The dashboard: what a node knows, in a browser of its owner.
//!
//! ```text
//! browser ─▶ guard.rs (host, origin, token) ─▶ dashboard.rs ─▶ views/* ─▶ page.rs, plot.rs
//!                                                 ▲   ▲
//!                           survey.rs (the store) ┘   └ live.rs (the rebuilder), the node's status
//! ```
//!
//! On loopback alone, and only to whoever has the token, which the control socket tells its owner.
//! Nothing is decided here: verdicts and disagreements are those of the commands, in their words.
//! Pages are whole without JavaScript; the one script only has them again while they are looked at.
//! One request changes something: to have outputs that are to be compared.

mod few;
mod guard;
mod live;
pub(crate) mod page;
mod plot;
mod survey;
mod views;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Query, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use node::{control::Node, driver::NodeStatus};
use serde::de::DeserializeOwned;
use store::Store;
use tokio::{net::TcpListener, sync::Semaphore, task, time};

pub(crate) use live::Live;

use self::{
    few::Few,
    guard::{Admission, Guard, HEADERS},
    survey::{Survey, Surveyor},
    views::{attesters, builds, disagreements, overview, packages, policy},
};
use crate::{
    commands::audit::diff::{self, Pair},
    context::Context,
    exit::{CliError, Code},
};

/// Connections at once.
const CONNECTIONS: usize = 64;

/// Pages that are made at once; more wait.
const PAGES: usize = 4;

/// How long a request may take, outputs that are downloaded apart.
const PATIENCE: Duration = Duration::from_secs(60);

/// The dashboard of a node.
pub(crate) struct Dashboard {
    listener: TcpListener,
    guard: Guard,
    live: Arc<Live>,
}

/// What pages are made of.
struct Shown {
    context: Context,
    store: Arc<Store>,
    node: Node,
    /// Whether the node rebuilds for others.
    watches: bool,
    live: Arc<Live>,
    surveyor: Surveyor,
    guard: Guard,
    pages: Semaphore,
}

type Here = State<Arc<Shown>>;

impl Dashboard {
    /// Listens at an address of this machine alone.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, CliError> {
        if !address.ip().is_loopback() {
            return Err(CliError::new(
                Code::Usage,
                format!("{address} is not an address of this machine alone"),
            )
            .hint("name one such as 127.0.0.1:4722; from elsewhere, reach it with `ssh -L`"));
        }
        let listener = TcpListener::bind(address).await.map_err(|e| {
            CliError::new(Code::Failed, format!("cannot listen on {address} for the dashboard: {e}"))
                .hint("is the port in use? `--dashboard 127.0.0.1:0` takes a free one")
        })?;
        let guard = Guard::new(listener.local_addr()?).map_err(|e| CliError::of(Code::Failed, &e))?;
        Ok(Self { listener, guard, live: Arc::default() })
    }

    /// Where a browser is let in.
    pub(crate) fn url(&self) -> String {
        self.guard.url()
    }

    /// What hears what the rebuilder does.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.clone()
    }

    /// Answers until it is dropped.
    ///
    /// # Errors
    ///
    /// The socket failed.
    pub(crate) async fn serve(
        self,
        context: Context,
        store: Arc<Store>,
        node: Node,
        watches: bool,
    ) -> io::Result<()> {
        let Self { listener, guard, live } = self;
        let surveyor = Surveyor::start(context.clone(), store.clone());
        let pages = Semaphore::new(PAGES);
        let shown = Arc::new(Shown { context, store, node, watches, live, surveyor, guard, pages });
        let router = Router::new()
            .route("/", get(show_overview))
            .route("/packages", get(list_packages))
            .route("/packages/{action}", get(show_package))
            .route("/disagreements", get(list_disagreements))
            .route("/disagreements/{action}", get(show_disagreement))
            .route("/disagreements/{action}/download", post(download))
            .route("/attesters", get(list_attesters))
            .route("/attesters/{name}", get(show_attester))
            .route("/builds", get(show_builds))
            .route("/policy", get(show_policy))
            .route("/peers", get(show_peers))
            .route("/style.css", get(async || file("text/css; charset=utf-8", page::STYLE)))
            .route("/live.js", get(async || file("text/javascript; charset=utf-8", page::SCRIPT)))
            .route("/icon.svg", get(async || file("image/svg+xml", page::ICON)))
            .fallback(async || failed(&CliError::new(Code::NotFound, "there is no such page")))
            .layer(middleware::from_fn_with_state(shown.clone(), admit))
            .with_state(shown);
        axum::serve(Few::new(listener, CONNECTIONS), router).await
    }
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Lets in whom the guard admits, and gives every answer its headers.
async fn admit(State(shown): Here, request: Request, next: Next) -> Response {
    let admission = shown.guard.admit(request.method(), request.uri(), request.headers());
    let mut response = match admission {
        Admission::In => next.run(request).await,
        Admission::Welcome(cookie) => {
            let headers = [(header::SET_COOKIE, cookie), (header::LOCATION, "/".into())];
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        Admission::Out(code) => {
            let words = "This is the dashboard of an Assize node. `assize dashboard` prints the address that lets you in.\n";
            (code, words).into_response()
        }
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A page that is ready.
struct Page {
    title: String,
    /// The page in the head of all that it belongs to.
    here: &'static str,
    live: bool,
    body: Markup,
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let Self { title, here, live, body } = self;
        let html = page::frame(&title, here, live, &body);
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html.into_string()).into_response()
    }
}

fn failed(error: &CliError) -> Response {
    let code = match error.code {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Usage | Code::Policy => StatusCode::BAD_REQUEST,
        Code::Unreachable => StatusCode::BAD_GATEWAY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let title = if code == StatusCode::NOT_FOUND { "Not found" } else { "That did not work" };
    let page = Page { title: title.into(), here: "", live: false, body: page::failed(error) };
    (code, page).into_response()
}

impl Shown {
    /// Makes a page from the latest survey.
    async fn page(
        self: Arc<Self>,
        make: impl FnOnce(&Self, &Survey) -> Result<Page, CliError> + Send + 'static,
    ) -> Response {
        let made = async {
            let _place = self.pages.acquire().await.ok()?;
            let latest = self.surveyor.latest().await?;
            let shown = self.clone();
            let make = move || match &*latest {
                Ok(survey) => make(&shown, survey).map_or_else(|e| failed(&e), Page::into_response),
                Err(error) => failed(error),
            };
            task::spawn_blocking(make).await.ok()
        };
        match time::timeout(PATIENCE, made).await {
            Ok(Some(response)) => response,
            Ok(None) => Page {
                title: "One moment".into(),
                here: "",
                live: true,
                body: html! { p role="status" { "The store is being looked through for the first time." } },
            }
            .into_response(),
            Err(_) => failed(&CliError::new(Code::Failed, "the page took too long")),
        }
    }

    async fn status(&self) -> Result<NodeStatus, CliError> {
        Ok(self.node.status().await?)
    }
}

/// What is asked for in the address.
fn wanted<T: DeserializeOwned>(query: Result<Query<T>, impl std::error::Error>) -> Result<T, CliError> {
    query.map(|Query(wanted)| wanted).map_err(|e| {
        CliError::new(Code::Usage, format!("the address is not understood: {e}"))
            .hint("follow a link of one of the pages")
    })
}

type Asked<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

async fn show_overview(State(shown): Here) -> Response {
    let status = match shown.status().await {
        Ok(status) => status,
        Err(error) => return failed(&error),
    };
    let make = move |shown: &Shown, survey: &Survey| {
        let body = overview::overview(survey, &shown.context.home, &status, &shown.live.seen());
        Ok(Page { title: "Overview".into(), here: "/", live: true, body })
    };
    shown.page(make).await
}

async fn show_peers(State(shown): Here) -> Response {
    match shown.status().await {
        Ok(status) => {
            let body = overview::peers(&status);
            Page { title: "Peers".into(), here: "/peers", live: true, body }.into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn list_packages(State(shown): Here, query: Asked<packages::Wanted>) -> Response {
    let make = move |_: &Shown, survey: &Survey| {
        let body = packages::list(survey, &wanted(query)?);
        Ok(Page { title: "Packages".into(), here: "/packages", live: false, body })
    };
    shown.page(make).await
}

async fn show_package(State(shown): Here, Path(action): Path<String>) -> Response {
    let make = move |shown: &Shown, survey: &Survey| {
        let (title, body) = packages::show(survey, &shown.store, &page::parse(&action)?)?;
        Ok(Page { title, here: "/packages", live: false, body })
    };
    shown.page(make).await
}

async fn list_disagreements(State(shown): Here, query: Asked<disagreements::Wanted>) -> Response {
    let make = move |_: &Shown, survey: &Survey| {
        let body = disagreements::list(survey, &wanted(query)?);
        Ok(Page { title: "Disagreements".into(), here: "/disagreements", live: false, body })
    };
    shown.page(make).await
}

async fn show_disagreement(State(shown): Here, Path(action): Path<String>) -> Response {
    let make = move |shown: &Shown, survey: &Survey| {
        let (title, body) = disagreements::show(survey, &shown.store, &page::parse(&action)?)?;
        Ok(Page { title, here: "/disagreements", live: false, body })
    };
    shown.page(make).await
}

/// Has what a disagreement is about, and shows it.
async fn download(State(shown): Here, Path(action): Path<String>) -> Response {
    let had = async {
        let action = page::parse(&action)?;
        let latest = shown.surveyor.latest().await;
        let Some(Ok(survey)) = latest.as_deref() else {
            return Err(CliError::new(Code::Failed, "the store is being looked through: try again"));
        };
        let dispute = survey.judgement.dispute(&action)?;
        let missing = Pair::of(&dispute, None, None)?.missing(&shown.store);
        diff::download(Some(&shown.node), &missing).await?;
        Ok(action)
    };
    match had.await {
        Ok(action) => {
            let page = format!("/disagreements/{action}");
            (StatusCode::SEE_OTHER, [(header::LOCATION, page)]).into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn list_attesters(State(shown): Here) -> Response {
    let make = |_: &Shown, survey: &Survey| {
        let body = attesters::list(survey);
        Ok(Page { title: "Attesters".into(), here: "/attesters", live: false, body })
    };
    shown.page(make).await
}

async fn show_attester(State(shown): Here, Path(name): Path<String>) -> Response {
    let make = move |_: &Shown, survey: &Survey| {
        let (title, body) = attesters::show(survey, &name)?;
        Ok(Page { title, here: "/attesters", live: false, body })
    };
    shown.page(make).await
}

async fn show_builds(State(shown): Here) -> Response {
    let body = builds::builds(&shown.live.seen(), shown.watches);
    Page { title: "Builds".into(), here: "/builds", live: true, body }.into_response()
}

async fn show_policy(State(shown): Here, query: Asked<policy::Wanted>) -> Response {
    let make = move |shown: &Shown, survey: &Survey| {
        let body = policy::policy(&shown.context, &shown.store, survey, &wanted(query)?)?;
        Ok(Page { title: "Policy".into(), here: "/policy", live: false, body })
    };
    shown.page(make).await
}
