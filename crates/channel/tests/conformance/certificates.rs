//! A cluster's authority and the certificates of its nodes, made for one test.

use mainstay_channel::{
    ClusterId, NodeId,
    net::{Credentials, cluster_name, node_name},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use std::{ops::Range, sync::OnceLock};

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// Everybody of a test run is of this one, unless a test wants another.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Authority> = OnceLock::new();
        SHARED.get_or_init(|| Self::new("test cluster"))
    }

    pub(crate) fn credentials(&self, cluster: ClusterId, node: NodeId) -> Credentials {
        self.papers(cluster, node).credentials(self)
    }

    /// For a node, and good for years.
    pub(crate) fn papers(&self, cluster: ClusterId, node: NodeId) -> Papers {
        self.papers_for(cluster, node, 2_020..2_040)
    }

    /// For a node, from the beginning of a year to that of another.
    pub(crate) fn papers_for(&self, cluster: ClusterId, node: NodeId, years: Range<i32>) -> Papers {
        let names = vec![cluster_name(cluster), node_name(cluster, node)];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Papers { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }
}

/// A node's certificate and key.
pub(crate) struct Papers {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Papers {
    /// Of somebody who believes in this authority, whoever has signed the certificate.
    pub(crate) fn credentials(&self, trusted: &Authority) -> Credentials {
        let (authority, chain) = (trusted.pem(), self.certificate.as_bytes());
        Credentials::from_pem(authority.as_bytes(), chain, self.key.as_bytes()).unwrap()
    }
}
