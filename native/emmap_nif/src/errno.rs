//! The names of POSIX errors, as OTP spells them.

const CLOSED: i32 = emmap_core::Errno::CLOSED.0;
const LENT: i32 = emmap_core::Errno::LENT.0;

/// `libc::ENOENT` is `"enoent"`; numbers without a name here are `"eunknown"`.
pub fn name(errno: i32) -> &'static str {
    match errno {
        CLOSED => "closed",
        LENT => "lent",
        libc::E2BIG => "e2big",
        libc::EACCES => "eacces",
        libc::EAGAIN => "eagain",
        libc::EBADF => "ebadf",
        libc::EBADMSG => "ebadmsg",
        libc::EBUSY => "ebusy",
        libc::EDQUOT => "edquot",
        libc::EEXIST => "eexist",
        libc::EFAULT => "efault",
        libc::EFBIG => "efbig",
        libc::EINTR => "eintr",
        libc::EINVAL => "einval",
        libc::EIO => "eio",
        libc::EISDIR => "eisdir",
        libc::ELOOP => "eloop",
        libc::EMFILE => "emfile",
        libc::EMLINK => "emlink",
        libc::ENAMETOOLONG => "enametoolong",
        libc::ENFILE => "enfile",
        libc::ENODEV => "enodev",
        libc::ENOENT => "enoent",
        libc::ENOEXEC => "enoexec",
        libc::ENOLCK => "enolck",
        libc::ENOMEM => "enomem",
        libc::ENOSPC => "enospc",
        libc::ENOSYS => "enosys",
        libc::ENOTBLK => "enotblk",
        libc::ENOTDIR => "enotdir",
        libc::ENOTEMPTY => "enotempty",
        libc::ENOTSUP => "enotsup",
        libc::ENXIO => "enxio",
        libc::EOVERFLOW => "eoverflow",
        libc::EPERM => "eperm",
        libc::EPIPE => "epipe",
        libc::ERANGE => "erange",
        libc::EROFS => "erofs",
        libc::ESPIPE => "espipe",
        libc::ESRCH => "esrch",
        libc::ESTALE => "estale",
        libc::ETIMEDOUT => "etimedout",
        libc::ETXTBSY => "etxtbsy",
        libc::EXDEV => "exdev",
        libc::ECANCELED => "ecanceled",
        libc::EDEADLK => "edeadlk",
        libc::EDOM => "edom",
        libc::EIDRM => "eidrm",
        libc::EILSEQ => "eilseq",
        libc::ENOLINK => "enolink",
        libc::ENOTCONN => "enotconn",
        libc::EPROTO => "eproto",
        libc::EREMOTE => "eremote",
        libc::EUSERS => "eusers",
        // Of file systems on networks and in user space.
        libc::ECONNABORTED => "econnaborted",
        libc::ECONNREFUSED => "econnrefused",
        libc::ECONNRESET => "econnreset",
        libc::EHOSTDOWN => "ehostdown",
        libc::EHOSTUNREACH => "ehostunreach",
        libc::ENETDOWN => "enetdown",
        libc::ENETUNREACH => "enetunreach",
        libc::ENOBUFS => "enobufs",
        // FreeBSD does not have this one, nor ETIME.
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        libc::ENODATA => "enodata",
        libc::ESHUTDOWN => "eshutdown",
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        libc::ETIME => "etime",
        _ => linux_name(errno),
    }
}

#[cfg(target_os = "linux")]
fn linux_name(errno: i32) -> &'static str {
    match errno {
        libc::ECOMM => "ecomm",
        libc::EHWPOISON => "ehwpoison",
        libc::EKEYEXPIRED => "ekeyexpired",
        libc::EKEYREJECTED => "ekeyrejected",
        libc::EKEYREVOKED => "ekeyrevoked",
        libc::ENOKEY => "enokey",
        libc::ENOMEDIUM => "enomedium",
        libc::ENONET => "enonet",
        libc::EREMOTEIO => "eremoteio",
        libc::EUCLEAN => "euclean",
        _ => "eunknown",
    }
}

#[cfg(not(target_os = "linux"))]
fn linux_name(_errno: i32) -> &'static str {
    "eunknown"
}
