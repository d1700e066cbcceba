//! What a client says its body hashes to, in headers or in trailers, and whether it does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::PutObjectInput;
use s3s::{S3Result, TrailingHeaders, s3_error};

use super::format::Footer;

const TRAILER: &str = "x-amz-trailer";

/// The checksums of S3 beside Content-MD5. The SHA-256 of a signed body is checked by s3s as it streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }
}

/// Hashes that are computed while a body is written. CRC-32C is not among them: the file format has it anyway.
#[derive(Default)]
pub(crate) struct Digests {
    md5: Option<Md5>,
    others: ChecksumHasher,
}

impl Digests {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        self.others.update(bytes);
    }
}

/// What was announced.
pub(crate) struct Expected {
    md5: Option<String>,
    checksums: Vec<(Algorithm, Option<String>)>,
    trailers: Option<TrailingHeaders>,
}

impl Expected {
    /// From a request whose body has not been read.
    pub(crate) fn of(input: &PutObjectInput, headers: &HeaderMap, trailers: Option<TrailingHeaders>) -> S3Result<Self> {
        let mut checksums = Vec::new();
        for algorithm in Algorithm::ALL {
            let value = match algorithm {
                Algorithm::Crc32 => &input.checksum_crc32,
                Algorithm::Crc32c => &input.checksum_crc32c,
                Algorithm::Crc64Nvme => &input.checksum_crc64nvme,
                Algorithm::Sha1 => &input.checksum_sha1,
                Algorithm::Sha256 => &input.checksum_sha256,
            };
            if value.is_some() {
                checksums.push((algorithm, value.clone()));
            }
        }
        if let Some(names) = headers.get(TRAILER) {
            let names = names.to_str().map_err(|_| s3_error!(InvalidRequest, "x-amz-trailer is not ASCII"))?;
            for name in names.split(',').map(str::trim) {
                let known = Algorithm::ALL.into_iter().find(|a| name.eq_ignore_ascii_case(a.header()));
                let algorithm = known.ok_or_else(|| s3_error!(NotImplemented, "an unknown checksum is announced"))?;
                checksums.push((algorithm, None));
            }
        }
        Ok(Self { md5: input.content_md5.clone(), checksums, trailers })
    }

    /// The hashes that [`Self::check`] will need.
    pub(crate) fn digests(&self) -> Box<Digests> {
        let mut digests = Box::new(Digests { md5: self.md5.as_ref().map(|_| Md5::new()), ..Digests::default() });
        for (algorithm, _) in &self.checksums {
            match algorithm {
                Algorithm::Crc32 => digests.others.crc32 = Some(s3s::crypto::Crc32::new()),
                Algorithm::Crc32c => {}
                Algorithm::Crc64Nvme => digests.others.crc64nvme = Some(s3s::crypto::Crc64Nvme::new()),
                Algorithm::Sha1 => digests.others.sha1 = Some(s3s::crypto::Sha1::new()),
                Algorithm::Sha256 => digests.others.sha256 = Some(s3s::crypto::Sha256::new()),
            }
        }
        digests
    }

    /// Compares, once the whole body is there.
    pub(crate) fn check(&self, digests: Digests, footer: &Footer) -> S3Result<()> {
        if let (Some(expected), Some(md5)) = (&self.md5, digests.md5)
            && *expected != STANDARD.encode(md5.finalize())
        {
            return Err(s3_error!(BadDigest, "Content-MD5 is not that of the body"));
        }
        let others = digests.others.finalize();
        let trailers = self.trailers.as_ref().and_then(TrailingHeaders::take);
        for (algorithm, value) in &self.checksums {
            let actual = match algorithm {
                Algorithm::Crc32 => others.checksum_crc32.clone(),
                Algorithm::Crc32c => Some(STANDARD.encode(footer.content_crc.to_be_bytes())),
                Algorithm::Crc64Nvme => others.checksum_crc64nvme.clone(),
                Algorithm::Sha1 => others.checksum_sha1.clone(),
                Algorithm::Sha256 => others.checksum_sha256.clone(),
            };
            let trailer = || trailers.as_ref()?.get(algorithm.header())?.to_str().ok().map(str::to_owned);
            // One that was announced and never came is as wrong as one that differs.
            if actual.is_none() || value.clone().or_else(trailer) != actual {
                return Err(s3_error!(BadDigest, "{} is not that of the body", algorithm.header()));
            }
        }
        Ok(())
    }
}
