//! Answers to requests: from the path to the verb, and from what came of it to bytes.

use super::audit;
use super::delete::{Deleted, Options};
use super::failure::Failure;
use super::faults::Fault;
use super::present::View;
use super::request::{Parameters, Target, verb};
use super::state::{Call, Patch, Written};
use super::watch::Watch;
use super::{Shared, discovery, events, object, pods};
use axum::body::Body;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, USER_AGENT};
use hyper::{Request, Response};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// What a body may have, as of the real server.
const BODY_BYTES_MAX: usize = 3 << 20;

/// The connection is to end without an answer.
#[derive(Debug)]
pub struct Ended;

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is to end here")
    }
}

impl std::error::Error for Ended {}

/// Answers a request, or does not.
pub async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Ended> {
    let header = |name: HeaderName| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (user_agent, accept, content) = (header(USER_AGENT), header(ACCEPT), header(CONTENT_TYPE));
    if shared.faults.is_cut(&user_agent) {
        return Err(Ended);
    }
    let path = request.uri().path().to_owned();
    let parameters = Parameters::parse(request.uri().query().unwrap_or_default());
    let target = Target::parse(&shared.state.lock().kinds, &path);
    let Some(target) = target else {
        if path == "/openapi/v2" {
            return Ok(openapi_v2());
        }
        return Ok(match discovery::page(&shared.state.lock().kinds, &path) {
            Some(page) => respond(200, &page),
            None => refuse(&Failure::no_such_path()),
        });
    };
    let method = request.method().clone();
    let Some(verb) = verb(&method, &target, &parameters) else {
        return Ok(refuse(&Failure::no_such_method()));
    };
    let is_write = !matches!(verb, "get" | "list" | "watch");
    let fault = shared.faults.of_request(&user_agent, is_write);
    let audit = |status: u16, dry_run: bool| {
        shared.audit.add(audit::Request::new(verb, &target, &user_agent, status, dry_run));
    };
    match fault {
        Some(Fault::Status(code)) => {
            audit(code, false);
            let reason = if code == 503 { "ServiceUnavailable" } else { "InternalError" };
            return Ok(refuse(&Failure::new(code, reason, "a fault that the test asked for")));
        }
        Some(Fault::Silence) => std::future::pending().await,
        _ => {}
    }
    let body = match axum::body::to_bytes(Body::new(request.into_body()), BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(_) => {
            let why =
                format!("the body of the request cannot be read, or is longer than {BODY_BYTES_MAX} bytes");
            return Ok(refuse(&Failure::new(413, "RequestEntityTooLarge", why)));
        }
    };
    let view = View::parse(&accept, parameters.get("includeObject"));
    if verb == "watch" {
        return Ok(match Watch::begin(&shared, &target, &parameters, view, &user_agent) {
            Ok(watch) => {
                audit(200, false);
                json_of(200, Body::from_stream(watch.lines()))
            }
            Err(failure) => {
                audit(failure.code, false);
                refuse(&failure)
            }
        });
    }
    let asked = Asked {
        verb,
        target: &target,
        parameters: &parameters,
        view,
        user_agent: &user_agent,
        content: &content,
    };
    let (result, dry_run) = asked.perform(&shared, &body);
    audit(result.as_ref().map_or_else(|failure| failure.code, |(code, _)| *code), dry_run);
    if fault == Some(Fault::AnswerLost) {
        return Err(Ended);
    }
    Ok(match result {
        Ok((code, body)) => respond(code, &body),
        Err(failure) => refuse(&failure),
    })
}

/// An empty document: kubectl asks for it, in protobuf only, before it applies lists or objects whose definition is new, and then leaves to the
/// server to check what it does not find there.
fn openapi_v2() -> Response<Body> {
    let kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let response = Response::builder().status(200).header(CONTENT_TYPE, kind);
    response.body(Body::empty()).expect("BUG: a status and a type that are none of HTTP")
}

fn respond(code: u16, body: &Value) -> Response<Body> {
    json_of(code, Body::from(body.to_string()))
}

fn refuse(failure: &Failure) -> Response<Body> {
    respond(failure.code, &failure.body())
}

fn json_of(code: u16, body: Body) -> Response<Body> {
    let response = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    response.body(body).expect("BUG: a status and a type that are none of HTTP")
}

struct Asked<'a> {
    verb: &'static str,
    target: &'a Target,
    parameters: &'a Parameters,
    view: View,
    user_agent: &'a str,
    content: &'a str,
}

type Answer = Result<(u16, Value), Failure>;

impl Asked<'_> {
    /// Does what is asked. Says, too, whether it was only a try.
    fn perform(&self, shared: &Shared, body: &[u8]) -> (Answer, bool) {
        let body = match parse(body, self.content) {
            Ok(body) => body,
            Err(failure) => return (Err(failure), false),
        };
        // Deletions and evictions may say it in their body.
        let in_body = |pointer: &str| {
            body.pointer(pointer).is_some_and(|all| !all.as_array().is_none_or(Vec::is_empty))
        };
        let dry_run = !self.parameters.get("dryRun").is_empty()
            || self.verb.starts_with("delete") && in_body("/dryRun")
            || in_body("/deleteOptions/dryRun");
        let call = self.call(dry_run);
        (self.do_it(shared, &call, body), dry_run)
    }

    fn call(&self, dry_run: bool) -> Call {
        let manager = match self.parameters.get("fieldManager") {
            "" => self.user_agent.split('/').next().unwrap_or_default(),
            manager => manager,
        };
        let Target { kind, namespace, name, subresource } = self.target;
        Call {
            kind: kind.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            subresource: subresource.clone(),
            manager: manager.chars().take(128).collect(),
            dry_run,
            strict: self.parameters.get("fieldValidation") == "Strict",
            now: Timestamp::now(),
        }
    }

    fn do_it(&self, shared: &Shared, call: &Call, body: Value) -> Answer {
        let mut state = shared.state.lock();
        let kind = &*call.kind;
        let written =
            |(object, is_new): Written| (if is_new { 201 } else { 200 }, self.view.object(kind, &object));
        match (self.verb, call.subresource.as_str()) {
            ("get", _) => Ok((200, self.view.object(kind, state.get(call)?))),
            ("list", _) => self.list(&state),
            ("create", "binding") => pods::bind(&mut state, call, &body).map(|done| (201, done)),
            ("create", "eviction") => pods::evict(&mut state, call, &body).map(|done| (201, done)),
            ("create", _) => {
                if kind.namespaced && call.namespace.is_empty() {
                    return Err(Failure::no_such_method());
                }
                Ok(written((state.create(call, body)?, true)))
            }
            ("update", _) => Ok(written(state.update(call, body)?)),
            ("patch", _) => Ok(written(state.patch(call, &self.patch(body)?)?)),
            ("delete", _) => {
                let options = self.delete_options(&body)?;
                let deleted = state.delete(call, &options)?;
                Ok((200, self.deleted(deleted)))
            }
            _ => {
                let options = self.delete_options(&body)?;
                let selector = self.parameters.selector(kind)?;
                let all: Vec<Arc<Value>> =
                    state.store.list(&kind.stored_as(), &call.namespace).cloned().collect();
                let all = all.into_iter().filter(|object| selector.matches(&events::present(kind, object)));
                let mut last = vec![];
                for object in all {
                    let one = Call {
                        name: object::name(&object).into(),
                        namespace: object::namespace(&object).into(),
                        ..call.clone()
                    };
                    state.delete(&one, &options)?;
                    last.push(events::present(kind, &object));
                }
                let version = json!({"resourceVersion": state.store.version().to_string()});
                Ok((200, self.view.list(kind, last, version)))
            }
        }
    }

    fn delete_options(&self, body: &Value) -> Result<Options, Failure> {
        let mut options = Options::parse(body)?;
        if let Ok(seconds) = self.parameters.get("gracePeriodSeconds").parse() {
            options.grace = Some(seconds);
        }
        match self.parameters.get("propagationPolicy") {
            "" => {}
            policy => {
                options.propagation = Options::parse(&json!({"propagationPolicy": policy}))?.propagation
            }
        }
        Ok(options)
    }

    fn deleted(&self, deleted: Deleted) -> Value {
        let kind = &*self.target.kind;
        match deleted {
            Deleted::Going(object) => self.view.object(kind, &object),
            // Some kinds show what was deleted, most only say that it is.
            Deleted::Gone(object)
                if kind.group.is_empty()
                    && matches!(
                        kind.plural.as_str(),
                        "pods" | "services" | "persistentvolumes" | "persistentvolumeclaims"
                    ) =>
            {
                self.view.object(kind, &object)
            }
            Deleted::Gone(object) => json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {
                    "name": object::name(&object), "group": kind.group, "kind": kind.plural, "uid": object::uid(&object),
                },
            }),
        }
    }

    fn patch(&self, body: Value) -> Result<Patch, Failure> {
        match self.content.split(';').next().unwrap_or_default() {
            "application/json-patch+json" => Ok(Patch::Json(body)),
            "application/merge-patch+json" => Ok(Patch::Merge(body)),
            "application/strategic-merge-patch+json" => Ok(Patch::Strategic(body)),
            "application/apply-patch+yaml" => {
                if self.parameters.get("fieldManager").is_empty() {
                    let why = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
                    return Err(Failure::new(422, "Invalid", why));
                }
                Ok(Patch::Apply { config: body, force: self.parameters.is("force") })
            }
            other => {
                let why = format!("the body of the request was in an unknown format: {other}");
                Err(Failure::new(415, "UnsupportedMediaType", why))
            }
        }
    }

    fn list(&self, state: &super::state::State) -> Answer {
        let (kind, parameters) = (&*self.target.kind, self.parameters);
        let selector = parameters.selector(kind)?;
        if let Some(asked) = parameters.version()?
            && asked > state.store.version()
        {
            let why = format!("Too large resource version: {asked}, current: {}", state.store.version());
            return Err(Failure::new(504, "Timeout", why));
        }
        let (version, after) = match parameters.get("continue") {
            "" => (state.store.version(), None),
            token => {
                let (version, after) = token_of(token)?;
                state.store.since(version).map(drop).map_err(|_| {
                    let why = "The provided continue parameter is too old to display a consistent list result. \
                               You must start a new list without the continue parameter.";
                    Failure::new(410, "Expired", why)
                })?;
                (version, Some(after))
            }
        };
        let key = |object: &Value| (object::namespace(object).to_owned(), object::name(object).to_owned());
        let mut objects: Vec<Value> = state
            .store
            .list(&kind.stored_as(), &self.target.namespace)
            .filter(|object| after.as_ref().is_none_or(|after| key(object) > *after))
            .map(|object| events::present(kind, object))
            .filter(|object| selector.matches(object))
            .collect();
        let mut list = json!({"resourceVersion": version.to_string()});
        let limit: usize = parameters.get("limit").parse().unwrap_or(0);
        if limit > 0 && objects.len() > limit {
            list["remainingItemCount"] = (objects.len() - limit).into();
            objects.truncate(limit);
            let (namespace, name) = objects.last().map(key).unwrap_or_default();
            list["continue"] = format!("{version}.{namespace}/{name}").into();
        }
        Ok((200, self.view.list(kind, objects, list)))
    }
}

/// Where a list goes on: the version of its first page, and the last object of the page before.
fn token_of(token: &str) -> Result<(u64, (String, String)), Failure> {
    let parsed = || {
        let (version, after) = token.split_once('.')?;
        let (namespace, name) = after.split_once('/')?;
        Some((version.parse().ok()?, (namespace.to_owned(), name.to_owned())))
    };
    parsed().ok_or_else(|| Failure::bad_request("continue key is not valid"))
}

fn parse(body: &[u8], content: &str) -> Result<Value, Failure> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    if content.contains("protobuf") || content.contains("cbor") {
        return Err(Failure::new(
            415,
            "UnsupportedMediaType",
            format!("{content} is not spoken here; send JSON"),
        ));
    }
    serde_json::from_slice(body).map_err(|error| {
        Failure::bad_request(format!("the object provided is unrecognized (must be JSON here): {error}"))
    })
}
