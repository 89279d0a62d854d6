//! The API server of the tests in the foreground, to try things by hand: `cargo run -p tests --bin kubernetes -- --kubeconfig FILE`.

use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use tests::kubernetes::api::ApiServer;

fn main() -> Result<()> {
    let mut listen: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut kubeconfig = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().with_context(|| format!("{arg} takes a value"))?;
        match arg.as_str() {
            "--listen" => {
                listen =
                    value.parse().with_context(|| format!("{value} is no address, such as 127.0.0.1:8001"))?
            }
            "--kubeconfig" => kubeconfig = Some(PathBuf::from(value)),
            _ => bail!("{arg} is unknown; there are --kubeconfig FILE and --listen ADDRESS"),
        }
    }
    let kubeconfig = kubeconfig.context("--kubeconfig FILE says where to write what clients need")?;
    let server = ApiServer::start(listen);
    server.kubeconfig(&kubeconfig);
    println!(
        "serving at {}; try: kubectl --kubeconfig {} get namespaces",
        server.url(),
        kubeconfig.display()
    );
    loop {
        std::thread::park();
    }
}
