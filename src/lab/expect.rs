//! What must come of a probe: whether its kind can tell that, and whether it can be true at all. An
//! expectation that is never compared would never fail, and one that nothing meets never pass.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::diag::{Place, codes, did_you_mean};
use crate::spec::at::At;
use crate::spec::probe::{ExpectLong, ExpectSpec, FailureName};

use super::declared;
use super::names::named;
use super::probe::{Ask, Expect, SourceExpect};
use super::probes::{Resolver, head};

impl Resolver<'_> {
    pub(super) fn expect(&mut self, spec: &At<ExpectSpec>, ask: Option<&Ask>) -> Expect {
        let details = match &spec.value {
            ExpectSpec::Success => return Expect { tolerance: 0.1, ..Expect::default() },
            ExpectSpec::Fail => {
                return Expect { fail: Some(FailureName::Any), tolerance: 0.1, ..Expect::default() };
            }
            ExpectSpec::Details(details) => details,
        };
        if let Some(ask) = ask {
            self.check_fits(details, ask, spec.place);
        }
        self.check_values(details, spec.place);
        let source = details.source.as_ref().and_then(|s| self.source(s));
        Expect {
            fail: details.fail.as_ref().map(|f| f.value),
            status: details.status.as_ref().map(|s| s.value),
            body: details.body.clone(),
            pod: details.pod.as_ref().map(|p| p.value.clone()),
            source,
            distribution: details.distribution.as_ref().map(|d| d.value.clone()),
            tolerance: details.tolerance.unwrap_or(0.1),
            ttl: details.ttl.as_ref().map(|t| t.value),
            mtu: details.mtu.as_ref().map(|m| m.value),
            answers: details.answers.clone(),
            rcode: details.rcode.as_ref().map(|r| r.to_uppercase()),
            exit_code: details.exit_code,
        }
    }

    fn source(&mut self, written: &At<String>) -> Option<SourceExpect> {
        let range = written.parse::<IpNet>().ok().or_else(|| written.parse::<IpAddr>().ok().map(IpNet::from));
        if let Some(range) = range {
            return Some(SourceExpect::Range(range));
        }
        let found = self.names.find(written).map(SourceExpect::Machine);
        if found.is_none() {
            self.unknown(written, "a source is an address, a range or a name of the lab, not");
        }
        found
    }

    /// A detail that a kind of probe cannot tell would never be compared, and so never fail.
    fn check_fits(&mut self, details: &ExpectLong, ask: &Ask, place: Place) {
        let (ping, http) = (matches!(ask, Ask::Ping { .. }), matches!(ask, Ask::Http(_)));
        let (dns, exec) = (matches!(ask, Ask::Dns { .. }), matches!(ask, Ask::Exec { .. }));
        let talks = http || matches!(ask, Ask::Tcp { .. } | Ask::Udp { .. });
        let wrong = [
            ("status", details.status.is_some(), http),
            ("body", details.body.is_some(), talks || exec),
            ("pod", details.pod.is_some(), talks),
            ("source", details.source.is_some(), talks),
            ("distribution", details.distribution.is_some(), talks),
            ("ttl", details.ttl.is_some(), ping),
            ("mtu", details.mtu.is_some(), ping),
            ("answers", details.answers.is_some(), dns),
            ("rcode", details.rcode.is_some(), dns),
            ("exitCode", details.exit_code.is_some(), exec),
        ];
        for (field, _, _) in wrong.iter().filter(|(_, written, fits)| *written && !fits) {
            let message = format!("this kind of probe cannot tell `{field}`");
            self.fault(codes::PROBE_EXPECT, message, head(place), "take it out, or ask with another kind of probe");
        }
        let others = wrong.iter().filter(|(name, written, _)| *written && !matches!(*name, "rcode" | "exitCode"));
        if details.fail.is_some() && others.count() > 0 {
            let message = "a probe that must fail has no answer to look at";
            self.fault(codes::PROBE_EXPECT, message, head(place), "leave `fail` or the other fields out");
        }
    }

    /// What no answer can ever be is a mistake in the file, not a finding about the lab.
    fn check_values(&mut self, details: &ExpectLong, place: Place) {
        if let Some(status) = details.status.as_ref().filter(|s| !(100..=599).contains(&s.value)) {
            let message = format!("{} is no HTTP status", status.value);
            self.fault(codes::PROBE_EXPECT, message, status.place, "they go from 100 to 599; 200 is OK");
        }
        if details.tolerance.is_some_and(|t| !(0.0..=1.0).contains(&t)) {
            self.fault(codes::PROBE_EXPECT, "a tolerance is a share, 0 to 1", head(place), "leave it out for 0.1");
        }
        if let Some(pod) = &details.pod {
            self.check_pattern(pod, pod.place);
        }
        let Some(shares) = &details.distribution else { return };
        for name in shares.value.keys() {
            self.check_pattern(name, shares.place);
        }
        if !shares.value.values().all(|s| (0.0..=1.0).contains(s)) {
            let help = "write the part of all answers that each gives, such as `{ tea-1: 0.5, tea-2: 0.5 }`";
            self.fault(codes::PROBE_EXPECT, "a share of the answers is a number from 0 to 1", shares.place, help);
        }
    }

    /// Who answers must be someone of the lab.
    fn check_pattern(&mut self, pattern: &str, place: Place) {
        if self.names.find(pattern).is_some() || self.names.all().any(|name| named(pattern, name)) {
            return;
        }
        let pattern = pattern.strip_prefix("default/").unwrap_or(pattern);
        if self.problems.is_full() || declared::anything(self.file, pattern) {
            return;
        }
        // A pattern may mean pods of a section that could not be read.
        if !self.file.damage.is_empty() && pattern.contains('*') {
            return;
        }
        let names: Vec<String> = self.lab.namespaces().map(|n| n.to_string()).collect();
        let help = match did_you_mean(pattern, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "name a pod, host or client; `*` stands for any letters, as in `tea-*`".to_owned(),
        };
        self.fault(
            codes::PROBE_EXPECT,
            format!("nothing in the lab is called `{pattern}`, so it cannot answer"),
            place,
            help,
        );
    }
}
