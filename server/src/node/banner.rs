//! What a person at a terminal wants to know first.

use super::open::reached_at;
use super::token::Token;
use crate::app::VERSION;
use crate::config::{Config, Listen};
use cluster::view::View;
use std::io::Write;
use std::net::SocketAddr;

/// Prints it on standard output.
pub fn print(config: &Config, address: SocketAddr, view: &View, token: &Token) {
    let text = text(config, address, view, token);
    // Standard output may be closed; that is no reason to stop.
    let _ = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
}

fn text(config: &Config, address: SocketAddr, view: &View, token: &Token) -> String {
    let url = format!("http://{address}");
    let mut text = format!(
        "Sarsen {VERSION} is ready. Data: {}\n\n  \
         write    {url}/api/v1/write            (remote_write of Prometheus, vmagent, …)\n  \
         query    {url}/api/v1/query?query=up   (add {url} to Grafana as a Prometheus data source)\n  \
         try      sarsen query instant up --url {url}\n  \
         status   sarsen status --url {url}\n",
        config.data_dir.display()
    );
    let reached = match view.nodes.get(&view.me) {
        Some(me) => me.address.clone(),
        None => reached_at(&config.cluster_listen, &config.cluster_advertise),
    };
    let (nodes, wanted) = (view.nodes.len(), usize::from(view.replication_factor));
    if nodes < wanted {
        let (cluster, http) = (other_port(&reached), other_port(&address.to_string()));
        text.push_str(&format!(
            "  nodes    {nodes} of the {wanted} that {wanted} copies need. The next one:\n\n  \
             sarsen server --join {reached} --join-token {} --cluster-listen {cluster} --http-listen {http} --data-dir ./sarsen-data-{}\n\n",
            token.argument(&config.data_dir),
            nodes + 1
        ));
        if is_loopback(&config.cluster_listen) {
            text.push_str("           (on another machine only after a restart of this one with --cluster-listen ADDRESS:PORT)\n");
        }
    } else {
        text.push_str(&format!("  nodes    {nodes} in this cluster; this one is {reached}\n"));
    }
    text.push_str("  stop     Ctrl-C\n");
    text
}

fn is_loopback(listen: &Listen) -> bool {
    let host = listen.0.rsplit_once(':').map_or("", |(host, _)| host);
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || plain.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The same host with a port that the next node on it can have: ten further, so that cluster and HTTP ports do not meet.
fn other_port(address: &str) -> String {
    let Some((host, port)) = address.rsplit_once(':') else { return address.to_string() };
    let port: u16 = port.parse().unwrap_or(0);
    format!("{host}:{}", port.checked_add(10).unwrap_or_else(|| port - 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_node_on_the_same_machine_gets_ports_of_its_own() {
        assert_eq!(other_port("127.0.0.1:7421"), "127.0.0.1:7431");
        assert_eq!(other_port("127.0.0.1:65530"), "127.0.0.1:65520");
        assert_eq!(other_port("127.0.0.1:0"), "127.0.0.1:10");
        assert!(is_loopback(&Listen("[::1]:7421".into())) && is_loopback(&Listen("localhost:1".into())));
        assert!(!is_loopback(&Listen("10.0.0.1:7421".into())));
    }
}
