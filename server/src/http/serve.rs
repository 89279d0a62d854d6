//! The accept loop: connections counted, slow and silent ones closed, and a stop that lets requests finish.

use super::linger::{Lingering, Unread};
use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How the accept loop treats connections.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Open connections; more wait in the kernel's queue.
    pub connections_max: u64,
    /// Time until the first byte.
    pub header_timeout: Duration,
    /// Time without a complete request head, at the beginning and between requests.
    pub idle_timeout: Duration,
    /// Time that requests under way get once `stop` has resolved.
    pub shutdown_timeout: Duration,
}

/// Serves until `stop` resolves, then takes no more connections and waits for the requests under way.
/// Returns how many connections were cut because they did not finish in time.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: Options,
    stop: impl Future<Output = ()>,
) -> usize {
    let connections = Arc::new(Semaphore::new(options.connections_max.clamp(1, 1 << 20) as usize));
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(options.idle_timeout);
    let graceful = GracefulShutdown::new();
    let (stopping, stopped) = tokio::sync::watch::channel(false);
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async {
            let permit = Arc::clone(&connections).acquire_owned().await.expect("BUG: never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly. They come back when connections close.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Answers are written in one piece; waiting for more only adds latency.
        let _ = stream.set_nodelay(true);
        let router = TowerToHyperService::new(router.clone());
        let builder = builder.clone();
        let watcher = graceful.watcher();
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                first = tokio::time::timeout(options.header_timeout, stream.readable()) => {
                    if !matches!(first, Ok(Ok(()))) {
                        return;
                    }
                }
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            let unread = Unread::default();
            let stream = Lingering::new(stream, unread.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                router.call(request.map(|body| unread.watch(body)))
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // Errors are the peer's: resets, timeouts, nonsense instead of HTTP.
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    stopping.send_replace(true);
    let open = options.connections_max.clamp(1, 1 << 20) as usize;
    match tokio::time::timeout(options.shutdown_timeout, graceful.shutdown()).await {
        Ok(()) => 0,
        Err(_) => open - connections.available_permits(),
    }
}
