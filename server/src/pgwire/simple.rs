//! The simple protocol: a text of statements, each answered in text.

use super::command::{self, Piece};
use super::connection::{Connection, Lost, Stop, Stream};
use super::error::Origin;

impl<S: Stream> Connection<S> {
    /// Answers all statements of `text`, up to the first that fails.
    pub(super) async fn simple_query(&mut self, text: &str) -> Result<(), Lost> {
        // The unnamed statement and portal do not outlive a simple query.
        self.statements.remove("");
        self.portals.remove("");
        match command::split(text) {
            Ok(pieces) if pieces.is_empty() => self.put_empty(b'I'),
            Ok(pieces) => self.pieces(pieces).await?,
            Err(error) => self.fail(&error, Some(Origin { sql: text, offset: 0 })),
        }
        self.end_of_transaction();
        self.put_ready();
        self.wire.flush().await
    }

    async fn pieces(&mut self, pieces: Vec<Piece>) -> Result<(), Lost> {
        for piece in pieces {
            let origin = (piece.sql.clone(), piece.offset);
            match self.piece(piece).await {
                Ok(()) => {}
                Err(Stop::Lost) => return Err(Lost),
                Err(Stop::Failed(error)) => {
                    self.fail(&error, Some(Origin { sql: &origin.0, offset: origin.1 }));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn piece(&mut self, piece: Piece) -> Result<(), Stop> {
        self.begin_statement(&piece.sql);
        self.check_transaction(&piece.command)?;
        let prepared = self.prepare(Some(piece), &[]).await?;
        prepared.check_no_parameters()?;
        let mut portal = self.bind(prepared, Vec::new(), &[]).await?;
        if let Some(columns) = portal.described() {
            columns.put_description(&mut self.wire.output);
        }
        self.execute(&mut portal, None).await
    }
}
