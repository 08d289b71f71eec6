//! What this machine has, and calling a loop compiled for it.

use std::sync::OnceLock;

/// The instruction sets that the kernels are written for, best first. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    #[cfg(target_arch = "x86_64")]
    /// AVX-512 F (sixteen lanes, thirty-two registers), with AVX2, FMA and F16C.
    Avx512,
    #[cfg(target_arch = "x86_64")]
    /// AVX2 with FMA and F16C.
    Avx2,
    /// Plain Rust. On x86 without FMA every multiply-add is a function call: right, and slow.
    Portable,
}

impl Isa {
    /// The best that this machine has. Asked once.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available().into_iter().next().expect("portable is always there"))
    }

    /// All that this machine can run, best first.
    pub fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            if avx2 && is_x86_feature_detected!("avx512f") {
                found.push(Self::Avx512);
            }
            if avx2 {
                found.push(Self::Avx2);
            }
        }
        found.push(Self::Portable);
        found
    }

    /// Runs `body` as compiled for this instruction set. The closure should be small and call functions marked
    /// `#[inline(always)]`, so that the compiler's own vectorisation applies to them.
    #[inline]
    pub(super) fn run<R>(self, body: impl FnOnce() -> R) -> R {
        match self {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "this variant exists only where the features were found")]
            Self::Avx512 => unsafe { with_avx512(body) },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "this variant exists only where the features were found")]
            Self::Avx2 => unsafe { with_avx2(body) },
            Self::Portable => body(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn with_avx512<R>(body: impl FnOnce() -> R) -> R {
    body()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<R>(body: impl FnOnce() -> R) -> R {
    body()
}
