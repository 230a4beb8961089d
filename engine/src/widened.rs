//! Loops that the compiler turns into instructions on wide registers, where the processor has them.

/// Compiles a function of plain loops twice: for AVX2, and for every processor. Which one runs is found out when it is
/// called. Elsewhere than on x86-64 there is the second alone.
macro_rules! widened {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn body($($arg: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn wide($($arg: $kind),*) $(-> $result)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has the feature.
                return unsafe { wide($($arg),*) };
            }
            body($($arg),*)
        }
    };
}

pub(crate) use widened;
