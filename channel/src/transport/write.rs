//! Writing, the same for both ends of a channel.

/// Implements `AsyncWrite` for a type whose field `stream` is one of `Stream::Plain` and
/// `Stream::Tls`.
macro_rules! write_through {
    ($io:ty) => {
        impl AsyncWrite for $io {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match &mut self.stream {
                    Stream::Plain { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
                    Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
                }
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match &mut self.stream {
                    Stream::Plain { stream, .. } => Pin::new(stream).poll_flush(cx),
                    Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                match &mut self.stream {
                    Stream::Plain { stream, .. } => Pin::new(stream).poll_shutdown(cx),
                    Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match &self.stream {
                    Stream::Plain { stream, .. } => stream.is_write_vectored(),
                    Stream::Tls(stream) => stream.is_write_vectored(),
                }
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match &mut self.stream {
                    Stream::Plain { stream, .. } => {
                        Pin::new(stream).poll_write_vectored(cx, slices)
                    }
                    Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
                }
            }
        }
    };
}

pub(super) use write_through;
