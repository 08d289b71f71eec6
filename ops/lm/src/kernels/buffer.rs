//! Zeroed storage that starts on a cache line, so that vector loads never straddle two.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes in a cache line, and in the widest vector register.
const LINE: usize = 64;

/// A number whose all-zero bytes are the value zero and that needs no drop.
///
/// Sealed by being implemented here only: [`Buffer`] relies on it.
pub trait Plain: Copy + Send + Sync + 'static + sealed::Sealed {}
impl Plain for f32 {}
impl Plain for u16 {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for i32 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u16 {}
    impl Sealed for u8 {}
    impl Sealed for i8 {}
    impl Sealed for i32 {}
}

/// A fixed number of plain values, zeroed at first, on a 64-byte boundary.
pub struct Buffer<T: Plain> {
    start: NonNull<T>,
    len: usize,
}

impl<T: Plain> Buffer<T> {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self { start: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        #[expect(unsafe_code, reason = "aligned allocation; the layout is not empty")]
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(raw.cast::<T>()) else { handle_alloc_error(layout) };
        Self { start, len }
    }

    /// A copy of `values`.
    pub fn from_slice(values: &[T]) -> Self {
        let mut buffer = Self::zeroed(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    fn layout(len: usize) -> Layout {
        Layout::array::<T>(len).and_then(|layout| layout.align_to(LINE)).expect("a buffer fits the address space")
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            #[expect(unsafe_code, reason = "allocated in `zeroed` with this very layout")]
            unsafe {
                dealloc(self.start.as_ptr().cast(), Self::layout(self.len));
            }
        }
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        #[expect(unsafe_code, reason = "`start` owns `len` initialised values")]
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.len)
        }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        #[expect(unsafe_code, reason = "`start` owns `len` initialised values, borrowed mutably")]
        unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len)
        }
    }
}

impl<T: Plain> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Self::from_slice(self)
    }
}

impl<T: Plain> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} values)", self.len)
    }
}

#[expect(unsafe_code, reason = "a buffer owns plain values, as a `Vec` does")]
unsafe impl<T: Plain> Send for Buffer<T> {}
#[expect(unsafe_code, reason = "shared access is read-only")]
unsafe impl<T: Plain> Sync for Buffer<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zeroed_aligned_and_copied() {
        for len in [0, 1, 15, 16, 1000] {
            let mut buffer = Buffer::<f32>::zeroed(len);
            assert!(buffer.iter().all(|&v| v == 0.0));
            assert!(len == 0 || (buffer.as_ptr() as usize).is_multiple_of(64));
            buffer.iter_mut().for_each(|v| *v = 1.5);
            assert_eq!(buffer.clone().iter().sum::<f32>(), 1.5 * len as f32);
        }
    }
}
