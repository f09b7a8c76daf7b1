//! A cluster's authority and the certificates of its nodes, made for one test.

use mainstay_channel::{
    ClusterId, NodeId,
    net::{Credentials, cluster_name, node_name},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use std::sync::OnceLock;

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// Everybody of a test run is of this one, unless a test wants another.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Authority> = OnceLock::new();
        SHARED.get_or_init(Self::new)
    }

    pub(crate) fn credentials(&self, cluster: ClusterId, node: NodeId) -> Credentials {
        self.credentials_until(cluster, node, 2_040)
    }

    /// For a node, from 2020 to the beginning of a year.
    pub(crate) fn credentials_until(
        &self,
        cluster: ClusterId,
        node: NodeId,
        year: i32,
    ) -> Credentials {
        self.trusting(self, cluster, node, year)
    }

    /// Signed by this authority, and believing in another.
    pub(crate) fn trusting(
        &self,
        trusted: &Self,
        cluster: ClusterId,
        node: NodeId,
        year: i32,
    ) -> Credentials {
        let names = vec![cluster_name(cluster), node_name(cluster, node)];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Credentials::from_pem(
            trusted.issuer.pem().as_bytes(),
            certificate.pem().as_bytes(),
            key.serialize_pem().as_bytes(),
        )
        .unwrap()
    }
}
