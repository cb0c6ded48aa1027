//! Asking the API, and going on asking.

use std::collections::BTreeMap;
use std::pin::pin;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};
use millrace_notation::address::{ChosenBy, Pods};
use tokio::sync::watch;

use crate::access::Access;
use crate::news::News;
use crate::roll::Roll;
use crate::standing::{Doubt, Standing};

/// Follows the pods that are meant, on the node of this name, for as long as somebody reads what is known. Never fails: what
/// goes wrong is a [`Doubt`], and asked again.
pub fn follow(access: &Access, node: &str, pods: &Pods) -> watch::Receiver<Standing> {
    let (sender, receiver) = watch::channel(Standing::unknown());
    let follower = Follower {
        access: access.clone(),
        node: node.to_owned(),
        pods: pods.clone(),
        sender,
    };
    tokio::spawn(follower.run());
    receiver
}

struct Follower {
    access: Access,
    node: String,
    pods: Pods,
    sender: watch::Sender<Standing>,
}

impl Follower {
    async fn run(self) {
        let client = match self.access.client() {
            Ok(client) => client,
            // Nothing of it is new at another try.
            Err(reason) => return self.doubt(Doubt::Unanswered(reason)),
        };
        match (&self.pods.chosen_by, self.pods.selector()) {
            (ChosenBy::Service(name), _) => self.follow_service(&client, name).await,
            (ChosenBy::Labels(_), Some(selector)) => self.follow_pods(&client, &selector).await,
            (ChosenBy::Labels(_), None) => {}
        }
    }

    /// The pods that a Service chooses, whatever it chooses from time to time.
    async fn follow_service(&self, client: &Client, name: &str) {
        let api: Api<Service> = Api::namespaced(client.clone(), &self.pods.namespace);
        let only = Config::default().fields(&format!("metadata.name={name}"));
        let mut news = News::of(api, only);
        let mut choice = Choice::default();
        loop {
            let chosen = choice.now.clone();
            let mut pods = pin!(self.follow_chosen(client, &chosen));
            while choice.now == chosen {
                let next = tokio::select! {
                    next = news.next() => next,
                    () = &mut pods => return,
                };
                match next {
                    Ok(event) => choice.hear(&event),
                    Err(reason) => self.doubt(Doubt::Unanswered(reason)),
                }
            }
        }
    }

    /// The pods that a Service has chosen; ends when nobody wants to know.
    async fn follow_chosen(&self, client: &Client, chosen: &Chosen) {
        match chosen {
            Chosen::Unknown => self.sender.closed().await,
            Chosen::By(selector) => self.follow_pods(client, selector).await,
            Chosen::Nothing(doubt) => {
                self.sender.send_replace(Standing {
                    pods: BTreeMap::new(),
                    doubt: Some(doubt.clone()),
                });
                self.sender.closed().await;
            }
        }
    }

    /// The pods with these labels; ends when nobody wants to know.
    async fn follow_pods(&self, client: &Client, selector: &str) {
        let api: Api<Pod> = Api::namespaced(client.clone(), &self.pods.namespace);
        let here = Config::default()
            .labels(selector)
            .fields(&format!("spec.nodeName={}", self.node));
        let mut news = News::of(api, here);
        let mut roll = Roll::default();
        loop {
            let next = tokio::select! {
                next = news.next() => next,
                () = self.sender.closed() => return,
            };
            match next {
                Ok(event) => {
                    if let Some(pods) = roll.hear(event) {
                        self.sender.send_replace(Standing {
                            pods: pods.clone(),
                            doubt: None,
                        });
                    }
                }
                Err(reason) => self.doubt(Doubt::Unanswered(reason)),
            }
        }
    }

    /// Says why what is known may not be so.
    fn doubt(&self, doubt: Doubt) {
        self.sender.send_if_modified(|standing| {
            let news = standing.doubt.as_ref() != Some(&doubt);
            standing.doubt = Some(doubt);
            news
        });
    }
}

/// What a Service chooses its pods by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Chosen {
    /// The API has not told yet.
    Unknown,
    /// By these labels, as the API wants them.
    By(String),
    /// It chooses none.
    Nothing(Doubt),
}

/// What is known of a Service.
#[derive(Debug)]
struct Choice {
    now: Chosen,
    /// Whether the list that is being told has had it.
    listed: bool,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            now: Chosen::Unknown,
            listed: false,
        }
    }
}

impl Choice {
    /// Takes in what the watch of the one Service says.
    fn hear(&mut self, event: &Event<Service>) {
        match event {
            Event::Init => self.listed = false,
            Event::InitApply(service) | Event::Apply(service) => {
                self.listed = true;
                self.now = Chosen::by(service);
            }
            Event::InitDone if self.listed => {}
            Event::InitDone | Event::Delete(_) => self.now = Chosen::Nothing(Doubt::NoService),
        }
    }
}

impl Chosen {
    fn by(service: &Service) -> Self {
        let selector = service.spec.as_ref().and_then(|it| it.selector.as_ref());
        let labels = selector.into_iter().flatten();
        let labels: Vec<String> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        match labels.is_empty() {
            true => Self::Nothing(Doubt::NoSelector),
            false => Self::By(labels.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceSpec;

    use super::*;

    fn service(labels: &[(&str, &str)]) -> Service {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Service {
            spec: Some(ServiceSpec {
                selector: Some(labels.collect()),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    #[test]
    fn a_service_chooses_by_its_labels_until_it_is_gone() {
        let mut choice = Choice::default();
        let mut after = |event: Event<Service>| {
            choice.hear(&event);
            choice.now.clone()
        };
        assert_eq!(after(Event::Init), Chosen::Unknown);
        let missing = Chosen::Nothing(Doubt::NoService);
        assert_eq!(after(Event::InitDone), missing);
        let by = Chosen::By("app=web,tier=front".to_owned());
        let labels = [("tier", "front"), ("app", "web")];
        assert_eq!(after(Event::Apply(service(&labels))), by);
        // Told anew: nothing changes until the list is complete.
        assert_eq!(after(Event::Init), by);
        assert_eq!(after(Event::InitApply(service(&labels))), by);
        assert_eq!(after(Event::InitDone), by);
        let none = Chosen::Nothing(Doubt::NoSelector);
        assert_eq!(after(Event::Apply(service(&[]))), none);
        assert_eq!(after(Event::Apply(service(&labels))), by);
        // Gone while nobody watched.
        assert_eq!(after(Event::Init), by);
        assert_eq!(after(Event::InitDone), missing);
    }
}
