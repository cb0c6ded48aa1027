//! Asking the API, and going on asking.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::runtime::watcher::Config;
use millrace_notation::address::{ChosenBy, Pods};
use tokio::sync::watch;

use crate::access::Access;
use crate::news::News;
use crate::roll::Roll;
use crate::standing::Standing;

/// Follows the pods that are meant, on the node of this name, for as long as somebody reads what is known. Never fails: what
/// goes wrong is a [`Doubt`](crate::Doubt), and asked again.
///
/// All pods of the node in their namespace are asked for, so that one that is not chosen any more is told from one that is
/// over.
pub fn follow(access: &Access, node: &str, pods: &Pods) -> watch::Receiver<Standing> {
    let (sender, receiver) = watch::channel(Standing::unknown());
    tokio::spawn(run(access.clone(), node.to_owned(), pods.clone(), sender));
    receiver
}

async fn run(access: Access, node: String, pods: Pods, sender: watch::Sender<Standing>) {
    let namespace = pods.namespace.clone();
    let here = Config::default().fields(&format!("spec.nodeName={node}"));
    let of_pods = {
        let namespace = namespace.clone();
        move |client| Api::<Pod>::namespaced(client, &namespace)
    };
    let mut pod_news = News::of(access.clone(), of_pods, here);
    let (labels, mut service_news) = match &pods.chosen_by {
        ChosenBy::Labels(labels) => (Some(labels.as_slice()), None),
        ChosenBy::Service(name) => {
            let only = Config::default().fields(&format!("metadata.name={name}"));
            let of_service = move |client| Api::<Service>::namespaced(client, &namespace);
            (None, Some(News::of(access, of_service, only)))
        }
    };
    let mut roll = Roll::new(labels);
    loop {
        let service = async {
            match &mut service_news {
                Some(news) => news.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            news = pod_news.next() => roll.hear_pods(news),
            news = service => roll.hear_service(news),
            () = sender.closed() => return,
        }
        let now = roll.standing();
        sender.send_if_modified(|known| {
            let is_news = *known != now;
            *known = now;
            is_news
        });
    }
}
