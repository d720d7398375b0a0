//! The boundary to C.

use std::ffi::{c_char, CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;

use emmap_core::store::{BadFormat, Error};
use emmap_core::{Errno, Result};

/// The file has another kind, version or byte order than expected.
const OTHER_FORMAT: Errno = Errno(libc::EPROTO);
/// Data is damaged.
pub const DAMAGED: Errno = Errno(libc::EBADMSG);

/// Runs a function of the library. A panic does not pass it.
pub fn call<T: From<i32>>(act: impl FnOnce() -> Result<T>) -> T {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => T::from(negative(error)),
        Err(payload) => {
            // Its destructor could also panic.
            std::mem::forget(payload);
            T::from(-libc::EIO)
        }
    }
}

/// An error in the form that C gets. Error numbers of the core become numbers of the system.
fn negative(error: Errno) -> i32 {
    match error {
        Errno::CLOSED => -libc::EBADF,
        Errno::LENT => -libc::EBUSY,
        Errno(number @ 1..) => -number,
        Errno(_) => -libc::EIO,
    }
}

/// The error of a file that could not be opened.
pub fn refused<M>(error: Error<M>) -> Errno {
    match error {
        Error::Posix(error) => error,
        Error::BadFormat(BadFormat::Kind | BadFormat::Version | BadFormat::Endianness) => {
            OTHER_FORMAT
        }
        Error::BadFormat(_) => DAMAGED,
        // Other names, or another number of counters, than requested.
        Error::Mismatch(_) => Errno::INVAL,
    }
}

/// What a handle points to; EINVAL for NULL.
///
/// # Safety
/// The pointer must be NULL or a handle that this library returned and that is not closed before the reference ends.
pub unsafe fn handle<'a, T>(handle: *const T) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_ref() }.ok_or(Errno::INVAL)
}

/// Stores a new handle at the caller's pointer.
///
/// # Safety
/// The pointer must be NULL or have room for a handle.
pub unsafe fn return_handle<T>(
    out: *mut *mut T,
    handle: impl FnOnce() -> Result<T>,
) -> Result<i32> {
    if out.is_null() {
        return Err(Errno::INVAL);
    }
    // SAFETY: the caller's promise. NULL first, so that no caller uses a handle after an error.
    unsafe { out.write(std::ptr::null_mut()) };
    let handle = Box::into_raw(Box::new(handle()?));
    // SAFETY: as above.
    unsafe { out.write(handle) };
    Ok(0)
}

/// Takes ownership of a handle; EINVAL for NULL.
///
/// # Safety
/// The pointer must be NULL or a handle that this library returned and that is not used any more.
pub unsafe fn take_handle<T>(handle: *mut T) -> Result<Box<T>> {
    match handle.is_null() {
        true => Err(Errno::INVAL),
        // SAFETY: the caller's promise: it was made by `Box::into_raw` in `return_handle`.
        false => Ok(unsafe { Box::from_raw(handle) }),
    }
}

/// The bytes of a string; EINVAL for NULL.
///
/// # Safety
/// The pointer must be NULL or a string that ends with NUL and lives as long as the result is used.
pub unsafe fn string<'a>(string: *const c_char) -> Result<&'a [u8]> {
    match string.is_null() {
        true => Err(Errno::INVAL),
        // SAFETY: the caller's promise.
        false => Ok(unsafe { CStr::from_ptr(string) }.to_bytes()),
    }
}

/// # Safety
/// As [`string`].
pub unsafe fn path<'a>(path: *const c_char) -> Result<&'a Path> {
    // SAFETY: the caller's promise.
    let path = unsafe { string(path)? };
    Ok(Path::new(OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let value: i64 = call(|| Ok(7));
        assert_eq!(value, 7);
        let value: i32 = call(|| panic!("on purpose"));
        assert_eq!(value, -libc::EIO);
        struct Worse;
        impl Drop for Worse {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let value: i32 = call(|| std::panic::panic_any(Worse));
        assert_eq!(value, -libc::EIO);
    }

    #[test]
    fn every_error_is_negative() {
        for (error, expected) in [
            (Errno::NOSPC, -libc::ENOSPC),
            (Errno::CLOSED, -libc::EBADF),
            (Errno::LENT, -libc::EBUSY),
            (Errno(0), -libc::EIO),
            (Errno(i32::MIN), -libc::EIO),
        ] {
            assert_eq!(call::<i32>(|| Err(error)), expected);
        }
        let refused = |why| refused::<()>(Error::BadFormat(why));
        assert_eq!(refused(BadFormat::Version), OTHER_FORMAT);
        assert_eq!(refused(BadFormat::Length), DAMAGED);
    }

    #[test]
    fn null_is_an_error() {
        // SAFETY: NULL is allowed.
        unsafe {
            assert!(handle::<u8>(std::ptr::null()).is_err());
            assert!(take_handle::<u8>(std::ptr::null_mut()).is_err());
            assert!(string(std::ptr::null()).is_err());
            assert!(return_handle(std::ptr::null_mut(), || Ok(1u8)).is_err());
        }
        let mut out = std::ptr::dangling_mut::<u8>();
        // SAFETY: there is room for a handle.
        assert!(unsafe { return_handle(&mut out, || Err(Errno::IO)) }.is_err());
        assert!(out.is_null());
    }
}
