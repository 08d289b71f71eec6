//! Where the program lies in memory. A program that can lie anywhere has some 280,000 addresses put right at each start: 5 ms, most of
//! what a short command takes. On Linux it lies where the linker puts it, as Go's programs do; its stack, its heap and its libraries
//! still lie anywhere.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    if of("CARGO_CFG_TARGET_OS") == "linux" && of("CARGO_CFG_TARGET_ENV") == "gnu" {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
